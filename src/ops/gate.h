// The prefill gate (AttnGate): pooled queries and keys predict which 64x64 blocks of the attention map
// matter. Source: SeerAttention, arXiv 2410.13276, section 3; semantics as the reference implementation
// trains them.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/block_mask.h"

namespace seer {

/// Pool functions in their fixed order; a set is a bit combination.
enum PoolSet : unsigned { kPoolMax = 1, kPoolMin = 2, kPoolAvg = 4 };

int pool_count(unsigned pools);

/// Pools x [num_tokens, heads, dim] (token stride `stride` elements) over each block of 64 tokens to
/// out [blocks_for(num_tokens), heads, pool_count * dim]; the named pools concatenated in the order max, min,
/// avg. The short last block pools over its own tokens only.
void block_pool(const Context& context, const float* x, std::int64_t num_tokens, int heads, int dim,
                std::int64_t stride, unsigned pools, float* out);

/// out[i, h, :] = x[i, h / (heads / x_heads), :] * w[h], w [heads, in_dim, out_dim] float32, x [n, x_heads,
/// in_dim], out [n, heads, out_dim].
void gate_project(const Context& context, const float* x, std::int64_t n, int x_heads, int in_dim,
                  const float* w, int heads, int out_dim, float* out);

/// scores[h, i, j] = q[i, h, :] . k[j, h / (heads / k_heads), :] * dim^-0.5 for j <= first_row + i; later
/// columns up to `stride` get -infinity. q [rows, heads, dim], k [n, k_heads, dim], scores [heads, rows,
/// stride].
void gate_scores(const Context& context, const float* q, std::int64_t rows, std::int64_t first_row, int heads,
                 const float* k, int k_heads, int dim, float* scores, std::int64_t stride);

/// In place: softmax over the causal columns j <= first_row + i of each row; later columns become 0.
void causal_softmax(const Context& context, float* scores, int heads, std::int64_t rows,
                    std::int64_t first_row, std::int64_t stride);

/// KL divergence between the gate's prediction and the pooled attention, and its gradient by the scores.
/// For block rows i in [skip_rows, n): loss_row = sum_{j <= i} t (log t - log softmax(scores)_j), t =
/// target[h, i, j]. loss = weight_per_row * sum of loss_row over heads and rows (in float64); d_scores = d
/// loss / d scores, 0 in skipped rows and after the diagonal. scores, target, d_scores: [heads, n, stride];
/// d_scores may be scores or nullptr. The reference's loss is skip_rows = n / 4 and weight_per_row = 1 /
/// (heads * (n - n / 4) * n).
double gate_kl_loss(const Context& context, const float* scores, const float* target, int heads,
                    std::int64_t n, std::int64_t stride, std::int64_t skip_rows, double weight_per_row,
                    float* d_scores);

}  // namespace seer
