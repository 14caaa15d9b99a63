#include "ops/select.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <vector>

#include "core/check.h"
#include "core/mix.h"
#include "ops/select_baseline.h"

namespace seer {
namespace {

/// A block of a row as one integer: larger score first, the later column of equal scores first. A total order
/// whatever the scores hold.
std::uint64_t ordered(float score, std::int64_t block) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0f);  // -0 becomes +0
  const std::uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{rising} << 32 | static_cast<std::uint64_t>(block);
}

std::int64_t block_of(std::uint64_t key) { return static_cast<std::int64_t>(key & 0xffffffffu); }

bool is_dense_row(const SelectParams& params, std::int64_t block_row) {
  return block_row >= first_dense_row(params);
}

void order_row(const float* scores, std::int64_t causal, std::vector<std::uint64_t>& keys) {
  keys.resize(static_cast<std::size_t>(causal));
  for (std::int64_t j = 0; j < causal; ++j) keys[static_cast<std::size_t>(j)] = ordered(scores[j], j);
}

void keep_top(std::vector<std::uint64_t>& keys, std::int64_t k, BlockMask& mask, int head, std::int64_t row) {
  std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<>());
  for (std::int64_t i = 0; i < k; ++i) mask.set(head, row, block_of(keys[static_cast<std::size_t>(i)]));
}

/// The fewest best blocks whose mass reaches `mass`.
void keep_mass(std::vector<std::uint64_t>& keys, const float* scores, double mass, BlockMask& mask, int head,
               std::int64_t row) {
  std::sort(keys.begin(), keys.end(), std::greater<>());
  double sum = 0;
  for (const std::uint64_t key : keys) {
    if (sum >= mass) break;
    mask.set(head, row, block_of(key));
    sum += scores[block_of(key)];
  }
}

/// Best blocks first, while score * mass not yet kept > `value`. Only blocks above it can qualify.
void keep_residual(std::vector<std::uint64_t>& keys, const float* scores, std::int64_t causal, double value,
                   BlockMask& mask, int head, std::int64_t row) {
  keys.clear();
  for (std::int64_t j = 0; j < causal; ++j)
    if (scores[j] > value) keys.push_back(ordered(scores[j], j));
  std::sort(keys.begin(), keys.end(), std::greater<>());
  double left = 1;
  for (const std::uint64_t key : keys) {
    const float score = scores[block_of(key)];
    if (!(score * left > value)) break;
    mask.set(head, row, block_of(key));
    left -= score;
  }
}

}  // namespace

void select_blocks(const Context& context, const float* scores, std::int64_t stride,
                   const SelectParams& params, BlockMask& mask) {
  const std::int64_t rows = mask.num_rows(), first_row = mask.first_row();
  SEER_CHECK(stride >= first_row + rows, "select_blocks: expected a row stride of at least {}, found {}",
             first_row + rows, stride);
  const std::int64_t k =
      params.rule == SelectRule::kNzRatio ? top_k_for_nz_ratio(params.value, params.total_blocks) : 0;
  std::vector<std::vector<std::uint64_t>> scratch(static_cast<std::size_t>(context.num_threads()));
  context.parallel_for(mask.num_heads() * rows, [&](std::int64_t item, int thread) {
    const int head = static_cast<int>(item / rows);
    const std::int64_t row = item % rows, causal = first_row + row + 1;
    const float* s = scores + item * stride;
    if (is_dense_row(params, first_row + row) || (params.rule == SelectRule::kNzRatio && k >= causal)) {
      mask.set_range(head, row, 0, causal);
      return;
    }
    if (params.rule == SelectRule::kThreshold) {
      for (std::int64_t j = 0; j < causal; ++j)
        if (s[j] > params.value) mask.set(head, row, j);
    } else if (params.rule == SelectRule::kResidual) {
      keep_residual(scratch[static_cast<std::size_t>(thread)], s, causal, params.value, mask, head, row);
    } else {
      auto& keys = scratch[static_cast<std::size_t>(thread)];
      order_row(s, causal, keys);
      if (params.rule == SelectRule::kNzRatio)
        keep_top(keys, k, mask, head, row);
      else
        keep_mass(keys, s, params.value, mask, head, row);
    }
    if (mask.count(head, row) == 0) mask.set(head, row, causal - 1);
  });
}

void select_top_k(const Context& context, const float* scores, std::int64_t stride, std::int64_t k,
                  BlockMask& mask) {
  const std::int64_t rows = mask.num_rows(), first_row = mask.first_row();
  SEER_CHECK(k > 0, "select_top_k: expected 1 block or more, found {}", k);
  SEER_CHECK(stride >= first_row + rows, "select_top_k: expected a row stride of at least {}, found {}",
             first_row + rows, stride);
  std::vector<std::vector<std::uint64_t>> scratch(static_cast<std::size_t>(context.num_threads()));
  context.parallel_for(mask.num_heads() * rows, [&](std::int64_t item, int thread) {
    const int head = static_cast<int>(item / rows);
    const std::int64_t row = item % rows, causal = first_row + row + 1;
    if (k >= causal) {
      mask.set_range(head, row, 0, causal);
      return;
    }
    auto& keys = scratch[static_cast<std::size_t>(thread)];
    order_row(scores + item * stride, causal, keys);
    keep_top(keys, k, mask, head, row);
  });
}

void select_sink_local(const SelectParams& params, BlockMask& mask) {
  const std::int64_t k = baseline_k(params);
  for (int head = 0; head < mask.num_heads(); ++head) {
    for (std::int64_t row = 0; row < mask.num_rows(); ++row) {
      const std::int64_t causal = mask.first_row() + row + 1;
      const std::int64_t band = is_dense_row(params, causal - 1) ? causal : std::max<std::int64_t>(1, k - 1);
      mask.set(head, row, 0);
      mask.set_range(head, row, std::max<std::int64_t>(0, causal - band), causal);
    }
  }
}

void select_random(const SelectParams& params, std::uint64_t seed, int layer, BlockMask& mask) {
  const std::int64_t k = baseline_k(params);
  std::vector<std::uint64_t> keys;
  for (int head = 0; head < mask.num_heads(); ++head) {
    const std::uint64_t stream =
        mix(mix(mix(seed) ^ static_cast<std::uint64_t>(layer)) ^ static_cast<std::uint64_t>(head));
    for (std::int64_t row = 0; row < mask.num_rows(); ++row) {
      const std::int64_t diagonal = mask.first_row() + row;
      if (k > diagonal || is_dense_row(params, diagonal)) {
        mask.set_range(head, row, 0, diagonal + 1);
        continue;
      }
      mask.set(head, row, diagonal);
      if (k == 1) continue;
      keys.clear();
      const std::uint64_t row_stream = mix(stream ^ static_cast<std::uint64_t>(diagonal));
      for (std::int64_t j = 0; j < diagonal; ++j) {
        const std::uint64_t random = mix(row_stream ^ static_cast<std::uint64_t>(j));
        keys.push_back((random & 0xffffffff00000000u) | static_cast<std::uint64_t>(j));
      }
      keep_top(keys, k - 1, mask, head, row);
    }
  }
}

}  // namespace seer
