// Models on both devices, for the tests of the GPU's.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "cuda_model/cuda_transformer.h"
#include "model/cpu_transformer.h"
#include "model/gate.h"

namespace seer {

/// One folder's model on both devices.
struct Both {
  explicit Both(const std::string& folder, DType dtype = DType::kBF16, std::int64_t chunk_tokens = 0)
      : config(load_model_config(folder)),
        weights(std::make_shared<ModelWeights>(ModelWeights::load(folder, config))),
        cpu(weights, config, Context(), {.kv_dtype = DType::kF32, .allow_bf16 = false, .max_context = 8192}),
        gpu(make_cuda_transformer(*weights, config, Context(),
                                  {.gpu_dtype = dtype, .chunk_tokens = chunk_tokens, .max_context = 8192})) {}

  static std::vector<float> losses(Transformer& model, std::span<const std::int32_t> tokens,
                                   Selector* selector = nullptr, PrefillStats* stats = nullptr) {
    std::vector<float> nll(tokens.size() - 1, NAN);
    Sequence sequence = model.new_sequence();
    const PrefillResult result =
        model.prefill(sequence, {.tokens = tokens, .selector = selector, .nll = nll.data()});
    if (stats != nullptr) *stats = result.stats;
    return nll;
  }

  ModelConfig config;
  std::shared_ptr<ModelWeights> weights;
  CpuTransformer cpu;
  std::unique_ptr<Transformer> gpu;
};

/// A gate of the usual kind whose scores follow the pooled queries and keys.
inline Gate make_gate(const ModelConfig& config) {
  Gate gate;
  gate.config.gate_hidden_size = config.head_dim;
  const std::int64_t dim = config.head_dim;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    GateLayer& weights = gate.layers.emplace_back();
    weights.k_weight = Buffer<float>(config.num_heads * 3 * dim * dim);
    std::fill(weights.k_weight.begin(), weights.k_weight.end(), 0.0f);
    for (int head = 0; head < config.num_heads; ++head)
      for (std::int64_t d = 0; d < dim; ++d)
        weights.k_weight[(head * 3 * dim + 2 * dim + d) * dim + d] = 4.0f;
  }
  return gate;
}

}  // namespace seer
