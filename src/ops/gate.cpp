#include "ops/gate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/buffer.h"
#include "core/check.h"
#include "cpu/gate/kernels.h"

namespace seer {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// Rows that share one work item of gate_project.
constexpr std::int64_t kProjectRows = 48;

}  // namespace

int pool_count(unsigned pools) { return std::popcount(pools); }

void block_pool(const Context& context, const float* x, std::int64_t num_tokens, int heads, int dim,
                std::int64_t stride, unsigned pools, float* out) {
  SEER_CHECK(pools != 0 && (pools & ~(kPoolMax | kPoolMin | kPoolAvg)) == 0,
             "block_pool: expected a set of max, min, avg, found {}", pools);
  SEER_CHECK(stride >= std::int64_t{heads} * dim,
             "block_pool: expected a token stride of at least {}, found {}", std::int64_t{heads} * dim,
             stride);
  const cpu::GateKernels& kernels = cpu::gate_kernels(context.isa());
  const std::int64_t width = std::int64_t{pool_count(pools)} * dim;
  context.parallel_for(blocks_for(num_tokens), [&](std::int64_t block, int) {
    const std::int64_t first = block * kBlockSize;
    const std::int64_t tokens = std::min(kBlockSize, num_tokens - first);
    for (int head = 0; head < heads; ++head) {
      float* next = out + (block * heads + head) * width;
      float* targets[3];
      for (int pool = 0; pool < 3; ++pool) {
        const bool wanted = (pools >> pool & 1) != 0;
        targets[pool] = wanted ? next : nullptr;
        if (wanted) next += dim;
      }
      kernels.pool(x + first * stride + std::int64_t{head} * dim, tokens, stride, dim, targets[0], targets[1],
                   targets[2]);
    }
  });
}

void gate_project(const Context& context, const float* x, std::int64_t n, int x_heads, int in_dim,
                  const float* w, int heads, int out_dim, float* out) {
  SEER_CHECK(x_heads > 0 && heads % x_heads == 0,
             "gate_project: expected a multiple of {} heads in the weights, found {}", x_heads, heads);
  const cpu::GateKernels& kernels = cpu::gate_kernels(context.isa());
  const std::int64_t x_stride = std::int64_t{x_heads} * in_dim, out_stride = std::int64_t{heads} * out_dim;
  const std::int64_t parts = (n + kProjectRows - 1) / kProjectRows;
  context.parallel_for(heads * parts, [&](std::int64_t item, int) {
    const std::int64_t head = item / parts, row = item % parts * kProjectRows;
    kernels.multiply(x + row * x_stride + head / (heads / x_heads) * in_dim, x_stride,
                     std::min(kProjectRows, n - row), in_dim, w + head * in_dim * out_dim, out_dim, out_dim,
                     1.0f, out + row * out_stride + head * out_dim, out_stride);
  });
}

void gate_scores(const Context& context, const float* q, std::int64_t rows, std::int64_t first_row, int heads,
                 const float* k, int k_heads, int dim, float* scores, std::int64_t stride) {
  SEER_CHECK(k_heads > 0 && heads % k_heads == 0, "gate_scores: expected a multiple of {} heads, found {}",
             k_heads, heads);
  SEER_CHECK(stride >= first_row + rows, "gate_scores: expected a row stride of at least {}, found {}",
             first_row + rows, stride);
  constexpr std::int64_t kTile = cpu::kGateTileColumns;
  const cpu::GateKernels& kernels = cpu::gate_kernels(context.isa());
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const std::int64_t n = first_row + rows, tiles = (stride + kTile - 1) / kTile;
  // One item is a head's tile of key columns: its keys are transposed once and all rows multiplied by them.
  Buffer<float> scratch(context.num_threads() * (dim + rows) * kTile);
  context.parallel_for(heads * tiles, [&](std::int64_t item, int thread) {
    const std::int64_t head = item / tiles, column = item % tiles * kTile;
    const std::int64_t width = std::min(kTile, stride - column);
    float* keys = scratch.data() + thread * (dim + rows) * kTile;  // [dim, kTile]
    float* product = keys + dim * kTile;                           // [rows, kTile]
    const std::int64_t causal_from = std::clamp<std::int64_t>(column - first_row, 0, rows);
    if (causal_from < rows) {
      for (std::int64_t j = 0; j < kTile; ++j) {
        const float* key =
            column + j < n ? k + ((column + j) * k_heads + head / (heads / k_heads)) * dim : nullptr;
        for (int d = 0; d < dim; ++d) keys[d * kTile + j] = key == nullptr ? 0.0f : key[d];
      }
      kernels.multiply(q + (causal_from * heads + head) * dim, std::int64_t{heads} * dim, rows - causal_from,
                       dim, keys, kTile, kTile, scale, product + causal_from * kTile, kTile);
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      float* out = scores + (head * rows + row) * stride + column;
      const std::int64_t causal = std::clamp<std::int64_t>(first_row + row + 1 - column, 0, width);
      std::copy_n(product + row * kTile, causal, out);
      std::fill(out + causal, out + width, kMinusInfinity);
    }
  });
}

void causal_softmax(const Context& context, float* scores, int heads, std::int64_t rows,
                    std::int64_t first_row, std::int64_t stride) {
  context.parallel_for(heads * rows, [&](std::int64_t item, int) {
    float* row = scores + item * stride;
    const std::int64_t causal = first_row + item % rows + 1;
    const float most = *std::max_element(row, row + causal);
    double sum = 0;
    for (std::int64_t j = 0; j < causal; ++j) sum += row[j] = std::exp(row[j] - most);
    const auto share = static_cast<float>(1.0 / sum);
    for (std::int64_t j = 0; j < causal; ++j) row[j] *= share;
    std::fill(row + causal, row + stride, 0.0f);
  });
}

double gate_kl_loss(const Context& context, const float* scores, const float* target, int heads,
                    std::int64_t n, std::int64_t stride, std::int64_t skip_rows, double weight_per_row,
                    float* d_scores) {
  std::vector<double> losses(static_cast<std::size_t>(heads * n), 0.0);
  context.parallel_for(heads * n, [&](std::int64_t item, int) {
    const std::int64_t row = item % n, causal = row + 1;
    const float* s = scores + item * stride;
    const float* t = target + item * stride;
    float* d = d_scores == nullptr ? nullptr : d_scores + item * stride;
    if (row < skip_rows) {
      if (d != nullptr) std::fill(d, d + stride, 0.0f);
      return;
    }
    const float most = *std::max_element(s, s + causal);
    double sum = 0, mass = 0, cross = 0;  // cross: sum of t (log t - (s - most))
    for (std::int64_t j = 0; j < causal; ++j) {
      sum += std::exp(s[j] - most);
      if (t[j] > 0) {
        mass += t[j];
        cross += t[j] * (std::log(t[j]) - (s[j] - most));
      }
    }
    losses[static_cast<std::size_t>(item)] = cross + mass * std::log(sum);
    if (d == nullptr) return;
    const auto scale = static_cast<float>(mass / sum);
    const auto weight = static_cast<float>(weight_per_row);
    for (std::int64_t j = 0; j < causal; ++j) d[j] = weight * (std::exp(s[j] - most) * scale - t[j]);
    std::fill(d + causal, d + stride, 0.0f);
  });
  double loss = 0;
  for (const double row_loss : losses) loss += row_loss;
  return loss * weight_per_row;
}

}  // namespace seer
