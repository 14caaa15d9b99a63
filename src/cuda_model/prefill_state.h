// What the parts of a prefill hand each other.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda_model/cuda_transformer_impl.h"
#include "cuda_model/device_gate.h"

namespace seer {

/// Rows of logits computed at a time.
inline std::int64_t logits_rows(std::int64_t tokens, std::int64_t vocab) {
  constexpr std::int64_t kLogits = std::int64_t{64} << 20;
  return std::min(tokens, std::max(kBlockSize, kLogits / vocab));
}

/// Waits for the stream.
template <class T>
std::vector<T> download(const T* data, std::int64_t count, const OwnedStream& stream) {
  std::vector<T> values(static_cast<std::size_t>(count));
  cuda::check(
      cudaMemcpyAsync(values.data(), data, values.size() * sizeof(T), cudaMemcpyDeviceToHost, stream.get()),
      "prefill");
  stream.wait("prefill");
  return values;
}

/// Tokens [first, first + tokens) of a prompt.
struct CudaTransformer::ChunkView {
  std::int64_t first = 0, tokens = 0, total = 0;
  const std::int32_t* lengths = nullptr;  // device: cu_seqlens_q [2], cu_seqlens_k [2]
  const DeviceRope* rope = nullptr;
  DeviceDecodeState* decode_gate = nullptr;  // of a sequence that will be decoded sparsely

  std::int64_t first_row() const { return first / kBlockSize; }
  std::int64_t rows() const { return blocks_for(tokens); }
  std::int64_t blocks() const { return first_row() + rows(); }
};

/// How the blocks of a prompt are chosen.
struct CudaTransformer::Selection {
  Selector* selector = nullptr;           // of a dense prefill with a gate: who names the gate
  SelectParams params;                    // kDense: all of them
  const DeviceGate* gate = nullptr;       // its inputs are computed, also of a dense prefill
  bool by_density = false;                // the oracle's adaptive rule
  std::int64_t selected = 0, causal = 0;  // of the layers known on the host

  /// Without a gate's weights.
  static Selection of(Selector& selector, std::int64_t total_tokens);
  bool is_dense() const { return params.rule == SelectRule::kDense; }
  const SelectorSettings& settings() const { return *selector->settings; }
  const GateConfig& gate_config() const { return settings().gate->config; }
  /// Values of the compressed keys of all layers; 0 without a gate.
  std::int64_t gate_keys(const ModelConfig& model, std::int64_t blocks) const {
    return gate == nullptr ? 0
                           : model.num_layers * settings().gate->num_k_heads(model) * blocks *
                                 gate_config().gate_hidden_size;
  }
};

}  // namespace seer
