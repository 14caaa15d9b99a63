#include "cuda/decode_gate.h"

#include "core/check.h"
#include "cuda_model/decode_state.h"
#include "cuda_model/device_decode_gate.h"
#include "ops/block_mask.h"

namespace seer {

/// nullptr where the sequence is decoded densely.
DeviceDecodeState* CudaTransformer::decode_state_of(const Sequence& sequence) const {
  if (sequence.decode_selector() == nullptr) return nullptr;
  SEER_CHECK(
      max_context_ <= cuda::kMaxSelectBlocks * kBlockSize,
      "--device cuda: a decode gate chooses among up to {} tokens, the context holds {}; lower it with "
      "--max-context",
      cuda::kMaxSelectBlocks * kBlockSize, max_context_);
  return &DeviceDecodeState::of(*sequence.decode_selector(), config_);
}

const DeviceRope& CudaTransformer::decode_gate_rope(int dim) {
  if (dim == config_.head_dim) return rope_;
  DeviceRope& rope = decode_->gate_ropes[dim];
  if (rope.cos.size() == 0) {
    const RopeTable table(config_.rope, dim, 1);
    rope.fill(table, 1, max_context_, stream_->get());
    stream_->wait("RoPE");  // before the table goes
  }
  return rope;
}

cuda::DecodeGateLayerParams CudaTransformer::decode_gate_layer(const DeviceDecodeGate& gate, int index) {
  const DeviceLayer& layer = weights_.layers[static_cast<std::size_t>(index)];
  const DeviceDecodeGate::Layer& weights = gate.layers[static_cast<std::size_t>(index)];
  const DeviceRope& rope = decode_gate_rope(gate.dim);
  return {.dtype = dtype(),
          .num_heads = config_.num_heads,
          .num_kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .model_q_norm = layer.q_norm.data(),
          .model_k_norm = layer.k_norm.data(),
          .model_norm_eps = config_.rms_norm_eps,
          .dim = gate.dim,
          .k_pools = gate.k_pools,
          .q_weight = weights.q_weight.data(),
          .k_weight = weights.k_weight.data(),
          .q_norm = weights.q_norm.data(),
          .k_norm = weights.k_norm.data(),
          .cos = rope.cos.data(),
          .sin = rope.sin.data()};
}

/// Compresses a chunk's whole blocks and keeps the keys after them.
void CudaTransformer::take_prompt_keys(DeviceDecodeState& state, int layer, const std::uint16_t* k,
                                       std::int64_t first, std::int64_t tokens) {
  const std::int64_t stride = config_.q_size() + 2 * config_.kv_size();
  const std::int64_t blocks = tokens / kBlockSize, rest = tokens % kBlockSize;
  cuda::decode_gate_keys({.gate = decode_gate_layer(state.gate(), layer),
                          .k = k,
                          .token_stride = stride,
                          .first_block = first / kBlockSize,
                          .num_blocks = blocks,
                          .keys = state.keys(layer),
                          .capacity = state.capacity()},
                         stream_->get());
  if (rest == 0) return;
  const auto row = 2 * static_cast<std::size_t>(config_.kv_size());
  cuda::check(cudaMemcpy2DAsync(state.open(layer), row, k + blocks * kBlockSize * stride,
                                2 * static_cast<std::size_t>(stride), row, static_cast<std::size_t>(rest),
                                cudaMemcpyDeviceToDevice, stream_->get()),
              "decode gate");
}

/// Graphs hold how blocks are chosen: those of another way go.
void CudaTransformer::choose_decoding(std::span<Sequence* const> sequences) {
  DecodeState& d = *decode_;
  const auto options_of = [](const Sequence& sequence) {
    return sequence.decode_selector() == nullptr ? DecodeSparsity{} : sequence.decode_selector()->options();
  };
  const DecodeSparsity wanted = options_of(*sequences.front());
  for (const Sequence* sequence : sequences)
    SEER_CHECK(
        options_of(*sequence) == wanted,
        "--device cuda: expected the sequences of a batch to have the same decode gate and rule, found "
        "different ones; decode them in batches of their own");
  std::shared_ptr<const DeviceDecodeGate> gate;
  if (wanted.gate != nullptr) gate = DeviceDecodeGate::of(*wanted.gate);
  if (wanted == d.sparsity && gate == d.gate) return;
  stream_->wait("decode");
  d.drop_graphs();
  d.sparsity = wanted;
  d.gate = std::move(gate);
}

/// Chooses the blocks of `batch` tokens whose projections are in d.qkv. nullptr: all blocks.
const std::uint64_t* CudaTransformer::select_for_decode(int batch, int layer) {
  DecodeState& d = *decode_;
  if (d.gate == nullptr) return nullptr;
  cuda::DecodeGateTokenParams params = decode_gate_params(batch);
  params.gate = decode_gate_layer(*d.gate, layer);
  params.layer = layer;
  if (layer < d.gate->start_layer) params.mask = nullptr;
  cuda::decode_gate(params, stream_->get());
  return params.mask;
}

cuda::DecodeGateTokenParams CudaTransformer::decode_gate_params(int batch) {
  DecodeState& d = *decode_;
  const bool by_budget = d.sparsity.rule == DecodeSparsity::Rule::kTokenBudget;
  return {.gate = decode_gate_layer(*d.gate, 0),
          .batch = batch,
          .sequences = d.gate_sequences.data(),
          .qkv = d.qkv.data(),
          .qkv_stride = config_.q_size() + 2 * config_.kv_size(),
          .positions = d.inputs.data() + batch,
          .rotate_at_last = d.sparsity.reference_rope,
          .token_budget = by_budget ? d.sparsity.token_budget : 0,
          .threshold = d.sparsity.threshold,
          .mask = d.mask.data(),
          .mask_words = mask_words_for(blocks_for(max_context_))};
}

/// Memory of the gate for all batches that there is room for.
void CudaTransformer::reserve_decode_gate() {
  DecodeState& d = *decode_;
  if (d.gate == nullptr) return;
  const cuda::DecodeGateTokenParams params = decode_gate_params(d.capacity);
  d.gate_sequences.reserve_discard(d.capacity);
  d.host_gate_sequences.reserve_discard(d.capacity);
  d.mask.reserve_discard(d.capacity * config_.num_kv_heads * params.mask_words);
}

void CudaTransformer::upload_decode_gate(std::span<Sequence* const> sequences) {
  DecodeState& d = *decode_;
  if (d.gate == nullptr) return;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    DeviceDecodeState& state = *decode_state_of(*sequences[b]);
    state.extend(sequences[b]->length() - 1, max_context_, stream_->get());
    d.host_gate_sequences.data()[b] = state.view();
  }
  cuda::check(cudaMemcpyAsync(d.gate_sequences.data(), d.host_gate_sequences.data(),
                              sequences.size() * sizeof(cuda::DecodeGateSequence), cudaMemcpyHostToDevice,
                              stream_->get()),
              "decode gate");
}

DecodeDensity CudaTransformer::decode_density(const Sequence& sequence) const {
  const DeviceDecodeState* state = decode_state_of(sequence);
  return state == nullptr ? DecodeDensity{} : state->density();
}

}  // namespace seer
