#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <type_traits>
#include <vector>

#include "core/check.h"
#include "cuda/elementwise.h"
#include "cuda/gate.h"
#include "cuda/pooled_target.h"
#include "cuda/select.h"
#include "cuda_model/device_decode_gate.h"
#include "cuda_model/prefill_scratch.h"
#include "cuda_model/prefill_state.h"
#include "cuda_model/probe.h"

namespace seer {
namespace {

using Clock = std::chrono::steady_clock;

/// Large enough for the products' and attention's full rate; activations of a chunk of an 8B model take 1
/// GiB.
constexpr std::int64_t kChunkTokens = 8192;

/// The oracle's density holds chunk by chunk: the chunks of the CPU, so that both devices choose alike.
constexpr std::int64_t kOracleChunkTokens = 1024;

template <class T>
void upload(std::type_identity_t<std::span<const T>> values, cuda::DeviceArray<T>& array,
            const OwnedStream& stream) {
  array.reserve_discard(static_cast<std::int64_t>(values.size()));
  cuda::check(
      cudaMemcpyAsync(array.data(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream.get()),
      "prefill");
}

}  // namespace

CudaTransformer::Selection CudaTransformer::Selection::of(Selector& selector, std::int64_t total_tokens) {
  SEER_CHECK(selector.settings.has_value(), "--device cuda: expected a selector of make_selector");
  const SelectorSettings& settings = *selector.settings;
  return {.selector = &selector,
          .params = settings.resolve(total_tokens),
          .by_density = settings.kind == SelectorKind::kOracle &&
                        settings.sparsity.rule == SparsityOptions::Rule::kAdaptive};
}

PrefillResult CudaTransformer::run_prefill(Sequence& sequence, const PrefillRequest& request) {
  const auto start = Clock::now();
  PrefillScratch& s = *prefill_;
  const cudaStream_t stream = stream_->get();
  const auto total = static_cast<std::int64_t>(request.tokens.size());

  Selection selection;
  if (request.selector != nullptr) {
    selection = Selection::of(*request.selector, total);
    if (selection.settings().kind == SelectorKind::kGate && !selection.is_dense())
      selection.gate = &DeviceGate::of(*request.selector);
  }
  const ObserverWants wants = request.observer != nullptr ? request.observer->wants() : ObserverWants{};
  if (wants.probe && wants.gated != nullptr) {
    selection.selector = wants.gated;
    selection.gate = &DeviceGate::of(*wants.gated);
  }
  const std::int64_t wanted_chunk = options_.chunk_tokens > 0             ? options_.chunk_tokens
                                    : selection.by_density || wants.probe ? kOracleChunkTokens
                                                                          : kChunkTokens;
  const std::int64_t chunk_tokens = std::min(wanted_chunk, blocks_for(total) * kBlockSize);
  DeviceDecodeState* const decode_gate = decode_state_of(sequence);
  const bool is_rescaled = config_.rope.type == RopeType::kDynamic && total > config_.max_position_embeddings;
  SEER_CHECK(
      decode_gate == nullptr || !is_rescaled,
      "--device cuda: decoding past the trained {} tokens with dynamic RoPE scaling runs on the CPU only",
      config_.max_position_embeddings);
  if (decode_gate != nullptr) decode_gate_rope(decode_gate->gate().dim);  // takes its memory before the plan
  plan_prefill(request, selection, decode_gate, wanted_chunk);
  if (decode_gate != nullptr) decode_gate->begin(total, max_context_, stream);
  sequence.extend(total);

  upload(request.tokens, s.tokens, *stream_);
  upload(sequence.pages(), s.page_table, *stream_);
  std::vector<std::int32_t> lengths;
  for (std::int64_t first = 0; first < total; first += chunk_tokens) {
    const std::int64_t end = std::min(first + chunk_tokens, total);
    for (const std::int64_t value : {std::int64_t{0}, end - first, std::int64_t{0}, end})
      lengths.push_back(static_cast<std::int32_t>(value));
  }
  upload(lengths, s.lengths, *stream_);
  const DeviceRope* rope = &rope_;
  if (is_rescaled) {
    s.rope.fill(rope_for(total), 1, total, stream);
    rope = &s.rope;
  }

  s.x.reserve_discard(chunk_tokens * config_.hidden_size);
  s.normed.reserve_discard(chunk_tokens * config_.hidden_size);
  s.qkv.reserve_discard(chunk_tokens * (config_.q_size() + 2 * config_.kv_size()));
  s.attention.reserve_discard(chunk_tokens * config_.q_size());
  s.gate_up.reserve_discard(chunk_tokens * 2 * config_.intermediate_size);
  s.activated.reserve_discard(chunk_tokens * config_.intermediate_size);
  s.lse.reserve_discard(chunk_tokens * config_.num_heads);
  s.selected.reserve_discard(1);
  cuda::check(cudaMemsetAsync(s.selected.data(), 0, s.selected.bytes(), stream), "prefill");
  if (s.counters.size() == 0) {
    s.counters.reserve_discard(2);
    cuda::check(cudaMemsetAsync(s.counters.data(), 0, s.counters.bytes(), stream), "prefill");
  }
  if (selection.gate != nullptr) {
    const std::int64_t blocks = blocks_for(total), dim = selection.gate_config().gate_hidden_size;
    s.gate_rope.fill(RopeTable(config_.rope, static_cast<int>(dim), total), kBlockSize, blocks, stream);
    s.gate_q.reserve_discard(config_.num_heads * blocks_for(chunk_tokens) * dim);
    s.gate_keys.reserve_discard(selection.gate_keys(config_, blocks));
  }
  if (request.nll != nullptr) s.nll.reserve_discard(total);

  PrefillResult result;
  timer_.start();
  std::int64_t chunk_index = 0;
  for (std::int64_t first = 0; first < total; first += chunk_tokens, ++chunk_index) {
    const ChunkView chunk{.first = first,
                          .tokens = std::min(chunk_tokens, total - first),
                          .total = total,
                          .lengths = s.lengths.data() + 4 * chunk_index,
                          .rope = rope,
                          .decode_gate = decode_gate};
    prefill_chunk(request, selection, chunk);
    if (request.on_logits || request.nll != nullptr) score_chunk(request, chunk);
    if (request.on_progress) request.on_progress(first + chunk.tokens);
    if (first + chunk.tokens == total && request.want_last_logits) {
      s.logits.reserve_discard(config_.vocab_size);
      compute_logits(s.x.data() + (chunk.tokens - 1) * config_.hidden_size, 1, s.normed.data(),
                     s.logits.data());
    }
  }
  if (request.want_last_logits) result.last_logits = download(s.logits.data(), config_.vocab_size, *stream_);
  if (request.nll != nullptr && total > 1) {
    const std::vector<float> nll = download(s.nll.data(), total - 1, *stream_);
    std::copy(nll.begin(), nll.end(), request.nll);
  }
  const std::uint64_t selected = download(s.selected.data(), 1, *stream_).front();

  const auto seconds = timer_.seconds();
  const auto of = [&](Stage stage) { return seconds[static_cast<std::size_t>(stage)]; };
  PrefillStats& stats = result.stats;
  stats.select_seconds = of(Stage::kGate) + of(Stage::kSelect);
  stats.attention_seconds = of(Stage::kAttention);
  stats.logits_seconds = of(Stage::kLogits);
  stats.stages = {.projection = of(Stage::kProjection),
                  .rope_pool = of(Stage::kRopePool),
                  .gate = of(Stage::kGate),
                  .mlp = of(Stage::kMlp),
                  .other = of(Stage::kOther)};
  stats.causal_blocks = selection.causal;
  stats.selected_blocks = selection.selected + static_cast<std::int64_t>(selected);
  stats.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

void CudaTransformer::prefill_chunk(const PrefillRequest& request, Selection& selection,
                                    const ChunkView& chunk) {
  PrefillScratch& s = *prefill_;
  cuda::embedding(weights_.embedding.data(), dtype(), s.tokens.data() + chunk.first, chunk.tokens,
                  config_.hidden_size, s.x.data(), stream_->get());
  for (int layer = 0; layer < config_.num_layers; ++layer) prefill_layer(request, selection, chunk, layer);
}

void CudaTransformer::prefill_layer(const PrefillRequest& request, Selection& selection,
                                    const ChunkView& chunk, int index) {
  PrefillScratch& s = *prefill_;
  const cudaStream_t stream = stream_->get();
  const DeviceLayer& layer = weights_.layers[static_cast<std::size_t>(index)];
  const std::int64_t hidden = config_.hidden_size, q_size = config_.q_size();
  const std::int64_t qkv_size = q_size + 2 * config_.kv_size();
  const ObserverWants wants = request.observer != nullptr ? request.observer->wants() : ObserverWants{};
  SEER_CHECK(!wants.target || selection.is_dense(),
             "prefill: the pooled attention is observed in a dense prefill only");
  unsigned q_pools = wants.q_pools, k_pools = wants.k_pools;
  if (selection.gate != nullptr) {
    q_pools = selection.gate_config().q_pools;
    k_pools = selection.gate_config().k_pools;
    SEER_CHECK((wants.q_pools | wants.k_pools) == 0,
               "prefill: pooled inputs are observed without a gate only");
  }
  // Observers take float32, the gate bf16.
  const auto pooled = [&](auto& out, bool wanted, int heads, unsigned pools) -> decltype(out.data()) {
    if (!wanted || pools == 0) return nullptr;
    out.reserve_discard(chunk.rows() * heads * pool_count(pools) * config_.head_dim);
    return out.data();
  };
  const bool gated = selection.gate != nullptr;
  const bool rotates_queries =
      gated && selection.gate->layers[static_cast<std::size_t>(index)].q_weight.size() == 0;

  cuda::rms_norm(s.x.data(), layer.input_norm.data(), config_.rms_norm_eps, chunk.tokens, hidden,
                 s.normed.data(), dtype(), stream);
  timer_.mark(Stage::kOther);
  product(s.normed.data(), chunk.tokens, layer.qkv.data(), qkv_size, hidden, s.qkv.data(),
          layer.qkv_bias.data());
  timer_.mark(Stage::kProjection);
  cuda::rope_pool(
      {.qkv = s.qkv.data(),
       .qkv_stride = qkv_size,
       .q = s.qkv.data(),
       .q_stride = qkv_size,
       .cache = pages_->cache(index, s.page_table.data(), s.page_table.size()),
       .cos = chunk.rope->cos.data(),
       .sin = chunk.rope->sin.data(),
       .q_norm = layer.q_norm.data(),
       .k_norm = layer.k_norm.data(),
       .norm_eps = config_.rms_norm_eps,
       .dtype = dtype(),
       .num_tokens = chunk.tokens,
       .first_position = chunk.first,
       .num_heads = config_.num_heads,
       .num_kv_heads = config_.num_kv_heads,
       .head_dim = config_.head_dim,
       .q_pools = q_pools,
       .k_pools = k_pools,
       .q_pooled = pooled(s.q_pooled, !gated, config_.num_heads, q_pools),
       .k_pooled = pooled(s.k_pooled, !gated, config_.num_kv_heads, k_pools),
       .q_gate = pooled(s.gate_q_pooled, gated, config_.num_heads, q_pools),
       .k_gate = pooled(s.gate_k_pooled, gated, config_.num_kv_heads, k_pools),
       .block_cos =
           rotates_queries ? s.gate_rope.cos.data() + chunk.first_row() * config_.head_dim / 2 : nullptr,
       .block_sin =
           rotates_queries ? s.gate_rope.sin.data() + chunk.first_row() * config_.head_dim / 2 : nullptr},
      stream);
  timer_.mark(Stage::kRopePool);
  if (chunk.decode_gate != nullptr) {
    take_prompt_keys(*chunk.decode_gate, index, s.qkv.data() + q_size, chunk.first, chunk.tokens);
    timer_.mark(Stage::kGate);
  }

  const std::int64_t causal = config_.num_heads * causal_blocks_of(chunk.first_row(), chunk.rows());
  const bool sparse = select(selection, chunk, index);
  selection.causal += causal;
  if (!sparse) selection.selected += causal;
  if (wants.target)  // of a dense prefill
    attend_with_target(chunk, index);
  else
    attend(chunk, index, sparse ? s.mask.data() : nullptr);
  timer_.mark(Stage::kAttention);
  if (request.observer != nullptr) observe(*request.observer, wants, selection, chunk, index, sparse);

  product(s.attention.data(), chunk.tokens, layer.o.data(), hidden, q_size, s.x.data(), layer.o_bias.data(),
          Output::kAdded);
  timer_.mark(Stage::kProjection);
  cuda::rms_norm(s.x.data(), layer.post_attention_norm.data(), config_.rms_norm_eps, chunk.tokens, hidden,
                 s.normed.data(), dtype(), stream);
  timer_.mark(Stage::kOther);
  run_mlp(layer, chunk.tokens, s.x.data(), s.normed.data(), s.gate_up.data(), s.activated.data());
  timer_.mark(Stage::kMlp);
}

cuda::PrefillAttentionParams CudaTransformer::prefill_attention(const ChunkView& chunk, int layer,
                                                                const std::uint64_t* mask) {
  PrefillScratch& s = *prefill_;
  const std::int64_t qkv_size = config_.q_size() + 2 * config_.kv_size();
  return {.q = s.qkv.data(),
          .q_token_stride = qkv_size,
          .q_head_stride = config_.head_dim,
          .out = s.attention.data(),
          .out_token_stride = config_.q_size(),
          .out_head_stride = config_.head_dim,
          .kv = pages_->keys_values(layer, s.page_table.data(), s.page_table.size()),
          .dtype = dtype(),
          .batch = 1,
          .num_heads = config_.num_heads,
          .num_kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .scale = scale(),
          .cu_seqlens_q = chunk.lengths,
          .cu_seqlens_k = chunk.lengths + 2,
          .total_q = chunk.tokens,
          .max_rows = chunk.rows(),
          .mask = mask,
          .mask_words = mask_words_for(chunk.blocks()),
          .mask_heads = config_.num_heads,
          .workspace = s.counters.data()};
}

void CudaTransformer::attend(const ChunkView& chunk, int layer, const std::uint64_t* mask) {
  cuda::attention_prefill(prefill_attention(chunk, layer, mask), stream_->get());
}

void CudaTransformer::attend_with_target(const ChunkView& chunk, int layer) {
  PrefillScratch& s = *prefill_;
  const std::int64_t stride = chunk.blocks();
  s.target.reserve_discard(config_.num_heads * chunk.rows() * stride);
  s.target_workspace.reserve_discard(static_cast<std::int64_t>(cuda::pooled_target_workspace(stride)));
  cuda::PrefillAttentionParams params = prefill_attention(chunk, layer, nullptr);
  params.lse = s.lse.data();
  cuda::attention_with_target(params,
                              {.target = s.target.data(),
                               .stride = stride,
                               .q_offset = chunk.first,
                               .workspace = s.target_workspace.data()},
                              stream_->get());
}

bool CudaTransformer::select(Selection& selection, const ChunkView& chunk, int index) {
  if (selection.is_dense()) return false;
  PrefillScratch& s = *prefill_;
  const cudaStream_t stream = stream_->get();
  const int heads = config_.num_heads;
  const std::int64_t rows = chunk.rows(), first_row = chunk.first_row(),
                     words = mask_words_for(chunk.blocks());
  s.mask.reserve_discard(heads * rows * words);
  switch (selection.settings().kind) {
    case SelectorKind::kDense:
      return false;
    case SelectorKind::kGate: {
      const GateConfig& gate = selection.gate_config();
      const DeviceGate::Layer& weights = selection.gate->layers[static_cast<std::size_t>(index)];
      const int k_heads = selection.settings().gate->num_k_heads(config_), dim = gate.gate_hidden_size;
      const std::int64_t blocks = blocks_for(chunk.total);
      std::uint16_t* keys = s.gate_keys.data() + index * k_heads * blocks * dim;
      const auto project = [&](const DeviceHalves& pooled, int x_heads, unsigned pools,
                               const DeviceHalves& weight, int out_heads, std::uint16_t* out,
                               std::int64_t out_head_stride) {
        cuda::gate_project({.x = pooled.data(),
                            .n = rows,
                            .x_heads = x_heads,
                            .in_dim = pool_count(pools) * config_.head_dim,
                            .w = weight.data(),
                            .heads = out_heads,
                            .out_dim = dim,
                            .cos = s.gate_rope.cos.data() + first_row * dim / 2,
                            .sin = s.gate_rope.sin.data() + first_row * dim / 2,
                            .out = out,
                            .out_head_stride = out_head_stride},
                           stream);
      };
      project(s.gate_k_pooled, config_.num_kv_heads, gate.k_pools, weights.k_weight, k_heads,
              keys + first_row * dim, blocks * dim);
      // Without a matrix, pooling has rotated them already.
      const bool projected = weights.q_weight.size() > 0;
      if (projected)
        project(s.gate_q_pooled, heads, gate.q_pools, weights.q_weight, heads, s.gate_q.data(), rows * dim);
      timer_.mark(Stage::kGate);
      cuda::gate_select({.q = projected ? s.gate_q.data() : s.gate_q_pooled.data(),
                         .q_head_stride = projected ? rows * dim : dim,
                         .q_row_stride = projected ? dim : heads * dim,
                         .k = keys,
                         .k_head_stride = blocks * dim,
                         .heads = heads,
                         .k_heads = k_heads,
                         .dim = dim,
                         .first_row = first_row,
                         .rows = rows,
                         .select = selection.params,
                         .mask = s.mask.data(),
                         .mask_words = words,
                         .selected_blocks = s.selected.data()},
                        stream);
      break;
    }
    case SelectorKind::kOracle: {
      attend_with_target(chunk, index);
      cuda::SelectBlocksParams params{.scores = s.target.data(),
                                      .stride = chunk.blocks(),
                                      .heads = heads,
                                      .first_row = first_row,
                                      .rows = rows,
                                      .select = selection.params,
                                      .mask = s.mask.data(),
                                      .mask_words = words,
                                      .selected_blocks = s.selected.data()};
      if (selection.by_density) {
        s.threshold.reserve_discard(1 + cuda::kThresholdWorkspace / sizeof(double));
        cuda::threshold_for_density(s.target.data(), chunk.blocks(), heads, first_row, rows,
                                    selection.settings().sparsity.value, s.threshold.data(),
                                    s.threshold.data() + 1, stream);
        params.value = s.threshold.data();
      }
      cuda::select_blocks(params, stream);
      break;
    }
    case SelectorKind::kLocal:
      cuda::select_sink_local(selection.params, heads, first_row, rows, s.mask.data(), words,
                              s.selected.data(), stream);
      break;
    case SelectorKind::kRandom:
      cuda::select_random(selection.params, selection.settings().seed, index, heads, first_row, rows,
                          s.mask.data(), words, s.selected.data(), stream);
      break;
  }
  timer_.mark(Stage::kSelect);
  return true;
}

/// Copies what the observer wants to the host, which waits for the device.
void CudaTransformer::observe(LayerObserver& observer, const ObserverWants& wants, const Selection& selection,
                              const ChunkView& chunk, int layer, bool sparse) {
  PrefillScratch& s = *prefill_;
  LayerObservation seen{.layer = layer,
                        .first_row = chunk.first_row(),
                        .rows = chunk.rows(),
                        .tokens = chunk.tokens,
                        .total_tokens = chunk.total};
  std::vector<float> q_pooled, k_pooled, target, lse;
  if (wants.q_pools != 0) {
    q_pooled =
        download(s.q_pooled.data(), chunk.rows() * config_.q_size() * pool_count(wants.q_pools), *stream_);
    seen.q_pooled = q_pooled.data();
  }
  if (wants.k_pools != 0) {
    k_pooled =
        download(s.k_pooled.data(), chunk.rows() * config_.kv_size() * pool_count(wants.k_pools), *stream_);
    seen.k_pooled = k_pooled.data();
  }
  if (wants.target) {
    target = download(s.target.data(), config_.num_heads * chunk.rows() * chunk.blocks(), *stream_);
    seen.target = target.data();
    seen.target_stride = chunk.blocks();
  }
  BlockMask mask;
  if (wants.mask && sparse) {
    mask.reset(config_.num_heads, chunk.first_row(), chunk.rows());
    const auto words = download(s.mask.data(), config_.num_heads * chunk.rows() * mask.words(), *stream_);
    std::copy(words.begin(), words.end(), mask.row(0, 0));
    seen.mask = &mask;
  }
  Probe probe(*this, selection, chunk, layer);
  if (wants.probe) {
    lse = download(s.lse.data(), config_.num_heads * chunk.tokens, *stream_);
    seen.lse = lse.data();
    seen.probe = &probe;
  }
  observer.observe(seen);
  timer_.mark(Stage::kOther);
}

void CudaTransformer::score_chunk(const PrefillRequest& request, const ChunkView& chunk) {
  PrefillScratch& s = *prefill_;
  const std::int64_t vocab = config_.vocab_size, last = chunk.total - 1;
  const std::int64_t step = logits_rows(chunk.tokens, vocab);
  s.logits.reserve_discard(step * vocab);
  for (std::int64_t row = 0; row < chunk.tokens; row += step) {
    const std::int64_t rows = std::min(step, chunk.tokens - row), position = chunk.first + row;
    compute_logits(s.x.data() + row * config_.hidden_size, rows, s.normed.data(), s.logits.data());
    const std::int64_t scored = std::min(rows, last - position);
    if (request.nll != nullptr && scored > 0)
      cuda::cross_entropy(s.logits.data(), scored, vocab, s.tokens.data() + position + 1,
                          s.nll.data() + position, stream_->get());
    if (request.on_logits)
      request.on_logits(position, rows, download(s.logits.data(), rows * vocab, *stream_).data());
  }
  timer_.mark(Stage::kLogits);
}

}  // namespace seer
