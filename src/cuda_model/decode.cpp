#include <algorithm>

#include "core/check.h"
#include "cuda/elementwise.h"
#include "cuda/sample.h"
#include "cuda_model/decode_state.h"
#include "ops/block_mask.h"

namespace seer {
namespace {

cuda::DecodeAttentionParams attention_params(const ModelConfig& config, DType dtype, int batch) {
  return {.dtype = dtype,
          .batch = batch,
          .num_heads = config.num_heads,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim};
}

}  // namespace

void CudaTransformer::reserve_decode(int batch) {
  DecodeState& d = *decode_;
  if (batch <= d.capacity) return;
  plan_decode(batch);
  stream_->wait("decode");
  d.drop_graphs();  // they hold the old addresses
  d.capacity = 0;   // until all of it is there
  const std::int64_t size = batch;
  const std::int64_t pages = blocks_for(max_context_), inner = config_.intermediate_size;
  d.inputs.reserve_discard(3 * size);
  d.host_inputs.reserve_discard(3 * size);
  d.draws.reserve_discard(size);
  d.host_draws.reserve_discard(size);
  d.host_next.reserve_discard(size);
  d.page_table.reserve_discard(size * pages);
  d.uploaded_pages.assign(static_cast<std::size_t>(batch), {});
  d.x.reserve_discard(size * config_.hidden_size);
  d.normed.reserve_discard(size * config_.hidden_size);
  d.qkv.reserve_discard(size * (config_.q_size() + 2 * config_.kv_size()));
  d.attention.reserve_discard(size * config_.q_size());
  d.gate_up.reserve_discard(size * 2 * inner);
  d.activated.reserve_discard(size * inner);
  d.logits.reserve_discard(size * config_.vocab_size);
  d.next.reserve_discard(size);
  std::size_t workspace = 0;  // the number of splits falls as the batch grows
  for (int b = 1; b <= batch; ++b)
    workspace = std::max(workspace, cuda::attention_decode_workspace(attention_params(config_, dtype(), b)));
  d.workspace.reserve_discard(static_cast<std::int64_t>(workspace));
  d.capacity = batch;
}

void CudaTransformer::upload_decode_state(std::span<Sequence* const> sequences,
                                          std::span<const std::int32_t> tokens) {
  DecodeState& d = *decode_;
  const std::size_t batch = sequences.size();
  const auto pages = static_cast<std::size_t>(blocks_for(max_context_));
  std::int32_t* inputs = d.host_inputs.data();
  for (std::size_t b = 0; b < batch; ++b) {
    const auto length = static_cast<std::int32_t>(sequences[b]->length());
    inputs[b] = tokens[b];
    inputs[batch + b] = length - 1;
    inputs[2 * batch + b] = length;
    std::vector<std::int32_t>& known = d.uploaded_pages[b];
    if (known == sequences[b]->pages()) continue;
    known = sequences[b]->pages();
    cuda::check(cudaMemcpyAsync(d.page_table.data() + b * pages, known.data(),
                                known.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice, stream_->get()),
                "decode");
  }
  cuda::check(cudaMemcpyAsync(d.inputs.data(), inputs, 3 * batch * sizeof(std::int32_t),
                              cudaMemcpyHostToDevice, stream_->get()),
              "decode");
}

/// Greedy ones where none are given, whose result is not looked at.
void CudaTransformer::upload_draws(std::span<const TokenDraw> draws, int batch) {
  DecodeState& d = *decode_;
  std::fill_n(d.host_draws.data(), batch, TokenDraw{});
  std::copy(draws.begin(), draws.end(), d.host_draws.data());
  cuda::check(cudaMemcpyAsync(d.draws.data(), d.host_draws.data(),
                              static_cast<std::size_t>(batch) * sizeof(TokenDraw), cudaMemcpyHostToDevice,
                              stream_->get()),
              "decode");
}

/// One step of `batch` sequences on the stream.
void CudaTransformer::launch_decode(int batch) {
  DecodeState& d = *decode_;
  const cudaStream_t stream = stream_->get();
  const std::int64_t hidden = config_.hidden_size, q_size = config_.q_size();
  const std::int64_t qkv_size = q_size + 2 * config_.kv_size(), pages = blocks_for(max_context_);
  const std::int32_t* tokens = d.inputs.data();
  // Another batch size may have left other things where the counters are now.
  const std::size_t workspace = cuda::attention_decode_workspace(attention_params(config_, dtype(), batch));
  cuda::check(cudaMemsetAsync(d.workspace.data(), 0, workspace, stream), "decode");
  cuda::embedding(weights_.embedding.data(), dtype(), tokens, batch, hidden, d.x.data(), stream);
  for (int index = 0; index < config_.num_layers; ++index) {
    const DeviceLayer& layer = weights_.layers[static_cast<std::size_t>(index)];
    cuda::rms_norm(d.x.data(), layer.input_norm.data(), config_.rms_norm_eps, batch, hidden, d.normed.data(),
                   dtype(), stream);
    product(d.normed.data(), batch, layer.qkv.data(), qkv_size, hidden, d.qkv.data(), layer.qkv_bias.data());
    const std::uint64_t* mask = select_for_decode(batch, index);
    cuda::rope_store({.qkv = d.qkv.data(),
                      .qkv_stride = qkv_size,
                      .q = d.qkv.data(),
                      .q_stride = qkv_size,
                      .cache = pages_->cache(index, d.page_table.data(), pages),
                      .cos = rope_.cos.data(),
                      .sin = rope_.sin.data(),
                      .q_norm = layer.q_norm.data(),
                      .k_norm = layer.k_norm.data(),
                      .norm_eps = config_.rms_norm_eps,
                      .dtype = dtype(),
                      .num_heads = config_.num_heads,
                      .num_kv_heads = config_.num_kv_heads,
                      .head_dim = config_.head_dim,
                      .batch = batch,
                      .positions = tokens + batch},
                     stream);
    cuda::DecodeAttentionParams attention = attention_params(config_, dtype(), batch);
    attention.q = d.qkv.data();
    attention.q_batch_stride = qkv_size;
    attention.q_head_stride = config_.head_dim;
    attention.out = d.attention.data();
    attention.out_batch_stride = q_size;
    attention.out_head_stride = config_.head_dim;
    attention.kv = pages_->keys_values(index, d.page_table.data(), pages);
    attention.scale = scale();
    attention.seqlens_k = tokens + 2 * batch;
    attention.mask = mask;
    attention.mask_words = mask_words_for(pages);
    attention.workspace = d.workspace.data();
    cuda::attention_decode(attention, stream);
    product(d.attention.data(), batch, layer.o.data(), hidden, q_size, d.x.data(), layer.o_bias.data(),
            Output::kAdded);
    cuda::rms_norm(d.x.data(), layer.post_attention_norm.data(), config_.rms_norm_eps, batch, hidden,
                   d.normed.data(), dtype(), stream);
    run_mlp(layer, batch, d.x.data(), d.normed.data(), d.gate_up.data(), d.activated.data());
  }
  compute_logits(d.x.data(), batch, d.normed.data(), d.logits.data());
  cuda::sample(d.logits.data(), batch, config_.vocab_size, d.draws.data(), d.next.data(), stream);
}

void CudaTransformer::run_decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                                 float* logits, std::span<const TokenDraw> draws, std::int32_t* next) {
  DecodeState& d = *decode_;
  const int batch = static_cast<int>(sequences.size());
  const cudaStream_t stream = stream_->get();
  for (const Sequence* sequence : sequences)
    SEER_CHECK(
        config_.rope.type != RopeType::kDynamic || sequence->length() <= config_.max_position_embeddings,
        "--device cuda: decoding past the trained {} tokens with dynamic RoPE scaling runs on the CPU "
        "only",
        config_.max_position_embeddings);
  choose_decoding(sequences);
  reserve_decode(batch);
  reserve_decode_gate();
  upload_decode_state(sequences, tokens);
  upload_draws(draws, batch);
  upload_decode_gate(sequences);
  const auto found = d.graphs.find(batch);
  if (found == d.graphs.end()) {
    launch_decode(batch);
    d.graphs[batch] = nullptr;
  } else {
    if (found->second == nullptr) {
      cudaGraph_t graph = nullptr;
      cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "decode graph");
      launch_decode(batch);
      cuda::check(cudaStreamEndCapture(stream, &graph), "decode graph");
      cuda::check(cudaGraphInstantiate(&found->second, graph, 0), "decode graph");
      cudaGraphDestroy(graph);
    }
    cuda::check(cudaGraphLaunch(found->second, stream), "decode");
  }
  if (logits != nullptr) {
    cuda::check(cudaMemcpyAsync(logits, d.logits.data(),
                                static_cast<std::size_t>(batch * config_.vocab_size) * sizeof(float),
                                cudaMemcpyDeviceToHost, stream),
                "decode");
    stream_->wait("decode");
    return;
  }
  cuda::check(
      cudaMemcpyAsync(d.host_next.data(), d.next.data(),
                      static_cast<std::size_t>(batch) * sizeof(std::int32_t), cudaMemcpyDeviceToHost, stream),
      "decode");
  stream_->wait("decode");
  for (int b = 0; b < batch; ++b) {
    SEER_CHECK(d.host_next.data()[b] >= 0,
               "the model's logits hold NaN or infinity: weights or activations overflow");
    next[b] = d.host_next.data()[b];
  }
}

}  // namespace seer
