// The gate's ops in float64, written to be read: they define what ops/gate.h computes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/gate.h"

namespace seer::reference {

/// As ops/gate.h's block_pool, rows of x contiguous: x [num_tokens, heads, dim].
std::vector<double> block_pool(std::span<const float> x, std::int64_t num_tokens, int heads, int dim,
                               unsigned pools);

/// x [n, x_heads, in_dim], w [heads, in_dim, out_dim] -> [n, heads, out_dim].
std::vector<double> gate_project(std::span<const float> x, std::int64_t n, int x_heads, int in_dim,
                                 std::span<const float> w, int heads, int out_dim);

/// -> [heads, rows, first_row + rows], -infinity after the diagonal.
std::vector<double> gate_scores(std::span<const float> q, std::int64_t rows, std::int64_t first_row,
                                int heads, std::span<const float> k, int k_heads, int dim);

/// Softmax over the causal columns of scores [heads, rows, first_row + rows]; 0 after them.
std::vector<double> causal_softmax(std::span<const float> scores, int heads, std::int64_t rows,
                                   std::int64_t first_row);

struct KlLoss {
  double loss = 0;
  std::vector<double> d_scores;  // [heads, n, n]
};
KlLoss gate_kl_loss(std::span<const float> scores, std::span<const float> target, int heads, std::int64_t n,
                    std::int64_t skip_rows, double weight_per_row);

}  // namespace seer::reference
