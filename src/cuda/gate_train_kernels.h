// Launchers of the elementwise and row-wise kernels of gate training. Internal to src/cuda. Device pointers;
// asynchronous on the default stream.
#pragma once

#include <cstdint>

#include "cuda/gate_train.h"

namespace seer::cuda {

/// Elements of the lower triangle of n rows.
constexpr std::int64_t triangle(std::int64_t n) { return n * (n + 1) / 2; }

/// out = x [heads, n, dim] turned by the angles of cos and sin [n, dim / 2], rotate-half; `inverse`: back.
/// out may be x.
void launch_gate_rope(const float* x, const float* cos, const float* sin, std::int64_t heads, std::int64_t n,
                      int dim, bool inverse, float* out);

/// KL divergence of rows from skip_rows on between softmax(scores) and target, both causal, and its gradient:
/// scores [heads, n, pitch] become row_weight * d loss / d scores, 0 after the diagonal (up to n) and in
/// skipped rows. target [heads, triangle(n)] float16. row_loss [heads, n], not times row_weight.
void launch_gate_kl(float* scores, const Float16* target, std::int64_t heads, std::int64_t n,
                    std::int64_t pitch, std::int64_t skip_rows, float row_weight, double* row_loss);

/// loss[layer] += factor * sum of row_loss [layers, rows], in a fixed order.
void launch_gate_loss(const double* row_loss, int layers, std::int64_t rows, double factor, double* loss);

void launch_gate_adam(const AdamFactors& adam, std::int64_t size, const float* gradient, float* weight,
                      float* m, float* v);

}  // namespace seer::cuda
