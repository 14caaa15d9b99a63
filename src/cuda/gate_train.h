// Training of gates on the GPU: loss, gradient and AdamW of all layers' gates, from pooled inputs and pooled
// attention that stay on the device. Host memory in and out.
//
// Source: SeerAttention, arXiv 2410.13276, section 4. Schedule and numbers: docs/kernels/hopper_distill.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/dtype.h"

namespace seer::cuda {

/// Sizes of the gates of a model. Without a q linear, q_width == dim and every query head has a matrix for
/// its keys; with one, every KV head has.
struct GateTrainShape {
  int layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int dim = 0;  // even
  int q_width = 0;
  int k_width = 0;
  bool has_q_linear = false;

  int group() const { return num_heads / num_kv_heads; }
  int key_heads() const { return has_q_linear ? num_kv_heads : num_heads; }
  /// Parameters of one layer.
  std::int64_t k_size() const { return std::int64_t{key_heads()} * k_width * dim; }
  std::int64_t q_size() const { return has_q_linear ? std::int64_t{num_heads} * q_width * dim : 0; }
};

/// What all layers' gates learn from one sequence of n blocks; one pointer a layer.
struct GateTrainSequence {
  std::int64_t n = 0;
  std::vector<const float*> q;         // [num_heads, n, q_width] pooled before RoPE
  std::vector<const float*> k;         // [num_kv_heads, n, k_width]
  std::vector<const Float16*> target;  // [num_heads, n * (n + 1) / 2]: rows of the pooled attention
  const float* cos = nullptr;          // [n, dim / 2] of positions 0, 64, 128, ...
  const float* sin = nullptr;
};

/// A sequence of a step, and the rows of it that count.
struct GateTrainItem {
  std::size_t sequence = 0;
  std::int64_t skip_rows = 0;
  double row_weight = 0;
};

/// Factors of one AdamW update: with g the gradient, m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2)
/// g^2 and w -= rate * m / (sqrt(v * v_share) + epsilon).
struct AdamFactors {
  float beta1 = 0;
  float beta2 = 0;
  float epsilon = 0;
  float rate = 0;
  float v_share = 0;
};

/// Gates in training. Products in float32 (no tf32); the same inputs give the same bits.
class GateTraining {
 public:
  /// Copies the sequences to the device. Throws Error naming the sizes and the remedy when they do not fit
  /// it.
  GateTraining(const GateTrainShape& shape, std::span<const GateTrainSequence> sequences);
  ~GateTraining();
  GateTraining(const GateTraining&) = delete;
  GateTraining& operator=(const GateTraining&) = delete;

  enum class Matrix : std::uint8_t { kKey, kQuery };
  /// One layer's matrices [key_heads or num_heads, width, dim] and their moments.
  void upload(Matrix which, int layer, const float* weight, const float* m, const float* v);
  void download(Matrix which, int layer, float* weight, float* m, float* v) const;

  /// One update of all gates from the mean over `batch` of the KL divergence between the gate's prediction
  /// and the pooled attention (row_weight times the sum over heads and rows from skip_rows on). Returns that
  /// mean by layer, from before the update.
  std::vector<double> step(std::span<const GateTrainItem> batch, const AdamFactors& adam);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::cuda
