// The small ops around attention and projections. All float32, row-major, parallel over rows.
#pragma once

#include <cstdint>
#include <span>

#include "core/context.h"
#include "ops/linear.h"

namespace seer {

/// out[t, :] = table[ids[t], :] widened. ids in [0, table.rows), checked.
void embedding(const Context& context, const MatrixView& table, const std::int32_t* ids,
               std::int64_t num_tokens, float* out);

/// out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight, over rows of `size` elements; out may be x.
/// weight: float32 [size]. Rows are `stride` elements apart in x and out.
void rms_norm(const Context& context, const float* x, const float* weight, float eps, std::int64_t rows,
              std::int64_t size, std::int64_t stride, float* out);

/// Rotates [num_tokens, heads, dim] in rotate-half form: out = x * cos + (-x[dim/2:], x[:dim/2]) * sin, with
/// tables cos, sin [num_tokens, dim / 2] of these tokens' positions. out may be x. Dim may be followed by
/// other data: tokens are `stride` elements apart.
void apply_rope(const Context& context, const float* x, const float* cos, const float* sin,
                std::int64_t num_tokens, int heads, int dim, std::int64_t x_stride, float* out,
                std::int64_t out_stride);

/// gate[r, :] = silu(gate[r, :]) * up[r, :] over rows x size contiguous elements.
void silu_multiply(const Context& context, float* gate, const float* up, std::int64_t count);

/// nll[r] = logsumexp(logits[r, :]) - logits[r, target[r]], the maximum and sum in float32/float64.
void cross_entropy(const Context& context, const float* logits, std::int64_t rows, std::int64_t vocab,
                   const std::int32_t* targets, float* nll);

/// Index of the largest value, the first of equals. Throws Error when one is NaN.
std::int32_t argmax(std::span<const float> logits);

}  // namespace seer
