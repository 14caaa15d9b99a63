// Loss and gradient of one gate on one sequence, from pooled inputs and the pooled attention alone.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "core/dtype.h"
#include "model/gate.h"

namespace seer {

/// Sizes of the gates of a model.
struct GateShape {
  GateShape(const GateConfig& gate, const ModelConfig& model);

  int num_heads, num_kv_heads, dim;  // dim: gate_hidden_size
  int q_width, k_width;              // pooled channels: pools * head_dim
  bool has_q_linear;

  int group() const { return num_heads / num_kv_heads; }
  std::int64_t k_matrix() const { return std::int64_t{k_width} * dim; }
  std::int64_t q_matrix() const { return std::int64_t{q_width} * dim; }
  /// Elements of k_weight and q_weight that belong to one KV head.
  std::int64_t k_group() const { return (has_q_linear ? 1 : group()) * k_matrix(); }
  std::int64_t q_group() const { return has_q_linear ? group() * q_matrix() : 0; }
};

/// Elements of the lower triangle of n rows.
inline constexpr std::int64_t triangle(std::int64_t n) { return n * (n + 1) / 2; }

/// What one layer's gate learns from one sequence of n blocks.
struct GateSample {
  std::int64_t n = 0;
  const float* q = nullptr;  // [num_heads, n, q_width] pooled before RoPE
  const float* k = nullptr;  // [num_kv_heads, n, k_width]
  const Float16* target =
      nullptr;                 // [num_heads, triangle(n)]: rows of the pooled attention, each summing to 1
  const float* cos = nullptr;  // [n, dim / 2] of positions 0, 64, 128, ...
  const float* sin = nullptr;
};

/// "row": every block row weighs the same, weight 1 / (heads * n). "reference": the mean over all elements of
/// rows from n / 4 on, times the gate_loss_scale of 10 (arXiv 2410.13276's trainer).
enum class GateLoss { kRow, kReference };

/// Rows left out and the weight of each of the others.
struct RowWeights {
  RowWeights(GateLoss loss, std::int64_t n, int num_heads);
  std::int64_t skip_rows;
  double weight;
};

/// Forward and backward pass of the gates of one KV head's query heads. One per thread: holds scratch memory.
class GateGradient {
 public:
  explicit GateGradient(const GateShape& shape) : shape_(shape) {}

  /// Adds `share` times the gradient of the loss of KV head `kv_head` to d_k [k_group()] and d_q [q_group()]
  /// (nullptr where the gate has no q linear). Returns the loss of these heads, not times `share`.
  double backward(const GateSample& sample, int kv_head, const GateLayer& weights, GateLoss loss,
                  double share, float* d_k, float* d_q);

  /// Calls visit(head, scores, target), both [n, n] with rows valid up to the diagonal, for the heads of
  /// `kv_head`.
  void forward(const GateSample& sample, int kv_head, const GateLayer& weights,
               const std::function<void(int, float*, const float*)>& visit);

 private:
  void reserve(std::int64_t n);
  /// Keys of matrix `index` of k_weight: k_ = rope(pooled * W).
  void project_keys(const GateSample& sample, int kv_head, const GateLayer& weights, std::int64_t index);
  /// Queries of a head: q_ = rope(pooled [* W]).
  void project_queries(const GateSample& sample, const GateLayer& weights, int head);
  /// scores_ = q_ k_^T / sqrt(dim), lower triangle by blocks of rows; target_ unpacked.
  void score(const GateSample& sample, int head);

  GateShape shape_;
  Buffer<float> q_, k_, d_q_, d_k_, scores_, target_;
};

/// One per thread.
std::vector<GateGradient> make_workers(const Context& context, const GateShape& shape);

/// While it lives, products inside a work item take one thread, also where a single item or thread opens no
/// parallel region: the order of their sums must not depend on the number of threads.
class SingleThreadedProducts {
 public:
  SingleThreadedProducts();
  ~SingleThreadedProducts();
  SingleThreadedProducts(const SingleThreadedProducts&) = delete;
  SingleThreadedProducts& operator=(const SingleThreadedProducts&) = delete;

 private:
  int before_;
};

}  // namespace seer
