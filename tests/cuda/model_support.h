// What tests of the forward pass on the GPU share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "cuda/attention.h"
#include "cuda_model/cuda_transformer.h"
#include "io/tensor_file.h"
#include "model/cpu_transformer.h"
#include "model/gate.h"
#include "support/golden.h"
#include "support/inputs.h"

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

/// The mean of the losses is near, and so is each of them in the root of the mean square. (The largest single
/// difference is not bounded: a block that ties with a cut may be kept on one device only.)
inline void expect_near_overall(const std::vector<float>& actual, const std::vector<float>& expected,
                                double mean_tolerance, double rms_tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double difference = 0, sum = 0, squares = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_FALSE(std::isnan(actual[i])) << i;
    const double d = static_cast<double>(actual[i]) - expected[i];
    difference += d;
    squares += d * d;
    sum += expected[i];
  }
  EXPECT_LE(std::abs(difference / sum), mean_tolerance) << "mean";
  EXPECT_LE(std::sqrt(squares / static_cast<double>(actual.size())), rms_tolerance) << "rms";
}

/// Losses of a model in 16 bits: the mean is near, and no single one is far off.
inline void expect_near(const std::vector<float>& actual, const std::vector<float>& expected,
                        double mean_tolerance, double largest_tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double difference = 0, sum = 0, largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    difference += actual[i] - expected[i];
    sum += expected[i];
    largest = std::max(largest, std::abs(static_cast<double>(actual[i]) - expected[i]));
    ASSERT_FALSE(std::isnan(actual[i])) << i;
  }
  EXPECT_LE(std::abs(difference / sum), mean_tolerance) << "mean";
  EXPECT_LE(largest, largest_tolerance) << "largest";
}

class CudaModel : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda::available(&reason)) GTEST_SKIP() << reason;
    for (const auto& file : test::golden_files("tiny-*", "expected.safetensors"))
      folders_.push_back(file.parent_path());
    if (folders_.empty()) GTEST_SKIP() << "no golden tiny models";
  }
  std::vector<std::string> folders_;
};

}  // namespace seer
