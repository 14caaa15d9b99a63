// Selection of blocks by one warp a row, the row's scores in registers: score of key block 32 * c + lane in
// x[c], -infinity from the row's end on.
//
// All rules but kThreshold keep the best blocks of a row up to some cut. Whether the next block of a given
// score is wanted depends on the number or mass of the better ones alone and falls with the score, so the cut
// is found by bisection, counting only blocks that are still open.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "ops/select_params.h"

namespace seer::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

/// SelectParams, resolved for a call.
struct RowRule {
  SelectRule rule;
  int k;                    // of kNzRatio
  double value;             // of the others
  std::int64_t dense_from;  // block rows from here on are dense
};

inline RowRule row_rule(const SelectParams& select) {
  return {.rule = select.rule,
          .k = select.rule == SelectRule::kNzRatio
                   ? static_cast<int>(top_k_for_nz_ratio(select.value, select.total_blocks))
                   : 0,
          .value = select.value,
          .dense_from = first_dense_row(select)};
}

/// Calls body(c) for every register of a row that may hold one of its first `causal` blocks.
template <int kChunks, class Body>
__device__ __forceinline__ void for_chunks(int causal, const Body& body) {
  constexpr int kGroup = 8;  // one branch for this many
#pragma unroll
  for (int begin = 0; begin < kChunks; begin += kGroup) {
    if (begin * 32 < causal) {
#pragma unroll
      for (int c = begin; c < begin + kGroup; ++c) body(c);
    }
  }
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

/// In place: softmax over the first `causal` blocks.
template <int kChunks>
__device__ __forceinline__ void softmax_row(float (&x)[kChunks], int causal, int lane) {
  float most = -INFINITY;
  for_chunks<kChunks>(causal, [&](int c) { most = fmaxf(most, x[c]); });
  most = warp_max(most) * 1.44269504088896340736f;
  float sum = 0;
  for_chunks<kChunks>(causal, [&](int c) {
    x[c] = exp2f(fmaf(x[c], 1.44269504088896340736f, -most));
    sum += x[c];
  });
  const float share = 1.0f / warp_sum(sum);
  for_chunks<kChunks>(causal, [&](int c) { x[c] = c * 32 + lane < causal ? x[c] * share : -INFINITY; });
}

/// Blocks above `value` are kept, and of those equal to it the last `ties`.
struct Cut {
  float value;
  int ties;
  int equal;  // blocks equal to value
};

/// The blocks above a score.
struct Level {
  float at;
  int count;
  double mass;  // the sum of their scores; kMass only
};

/// Between two scores: in the logarithm where both are positive.
__device__ __forceinline__ float middle(float low, float high) {
  if (low < 0 || !(high > 0)) return low + (high - low) * 0.5f;
  const unsigned a = __float_as_uint(low + 0.0f), b = __float_as_uint(high);  // -0 becomes +0
  return __uint_as_float(a + (b - a) / 2);
}

/// sum += x. Volatile, for otherwise the compiler widens a whole row ahead of the loop and spills it.
__device__ __forceinline__ void add_wide(double& sum, float x) {
  asm volatile(
      "{.reg .f64 wide;\n"
      "cvt.f64.f32 wide, %1;\n"
      "add.f64 %0, %0, wide;}"
      : "+d"(sum)
      : "f"(x));
}

/// Adds the blocks in (low, level.at] to the level, which moves to `low`.
template <bool kMass, int kChunks>
__device__ __forceinline__ Level lower(const float (&x)[kChunks], int causal, const Level& level, float low) {
  int count = 0;
  double mass = 0;
  for_chunks<kChunks>(causal, [&](int c) {
    if (x[c] > low && x[c] <= level.at) {
      ++count;
      if constexpr (kMass) add_wide(mass, x[c]);
    }
  });
  count = __reduce_add_sync(kAllLanes, count);
  if constexpr (kMass) mass = warp_sum(mass);
  return {low, level.count + count, level.mass + mass};
}

/// The cut of kNzRatio (kMass false), kTopP or kResidual.
template <bool kMass, int kChunks>
__device__ __forceinline__ Cut find_cut(const float (&x)[kChunks], int causal, const RowRule& rule) {
  // Whether a block of this score, with these before it, is still wanted.
  const auto wants = [&](float score, int count, double mass) {
    if constexpr (!kMass) return count < rule.k;
    return rule.rule == SelectRule::kTopP ? mass < rule.value
                                          : static_cast<double>(score) * (1 - mass) > rule.value;
  };
  float least = INFINITY, most = -INFINITY;
  for_chunks<kChunks>(causal, [&](int c) {
    most = fmaxf(most, x[c]);
    least = fminf(least, x[c] == -INFINITY ? INFINITY : x[c]);
  });
  Level top = {warp_max(most), 0, 0};
  if (!wants(top.at, 0, 0)) return {top.at, 0, 0};
  Level bottom = lower<kMass>(x, causal, top, -warp_max(-least));
  float score = bottom.at;
  int equal = causal - bottom.count;
  if (wants(bottom.at, bottom.count, bottom.mass)) {
    top = bottom;
  } else {
    while (bottom.count - top.count > 1) {
      const float at = middle(bottom.at, top.at);
      if (!(at > bottom.at && at < top.at)) break;  // neighbours: all that is left has the score top.at
      const Level level = lower<kMass>(x, causal, top, at);
      if (!kMass && level.count == rule.k) return {at, 0, 0};
      (wants(at, level.count, level.mass) ? top : bottom) = level;
    }
    equal = bottom.count - top.count;
    if (equal == 0) return {top.at, 0, 0};
    score = -INFINITY;
    for_chunks<kChunks>(causal, [&](int c) {
      if (x[c] <= top.at) score = fmaxf(score, x[c]);
    });
    score = warp_max(score);
  }
  Cut cut = {score, 0, equal};
  double mass = top.mass;
  while (cut.ties < equal && wants(score, top.count + cut.ties, mass)) {
    ++cut.ties;
    mass += static_cast<double>(score);
  }
  return cut;
}

/// Bits of the key blocks [32 * word, 32 * word + 32) that lie in [begin, end).
__device__ __forceinline__ std::uint32_t range_bits(std::int64_t word, std::int64_t begin, std::int64_t end) {
  const auto below = [word](std::int64_t limit) {
    const std::int64_t bits = limit - word * 32;
    return bits >= 32 ? ~0u : bits <= 0 ? 0u : (1u << bits) - 1;
  };
  return below(end) & ~below(begin);
}

/// Writes the row's mask by the rule on its scores (kNzRatio: any, otherwise probabilities): `words` words of
/// 32 bits. Returns the number of blocks kept.
template <int kChunks>
__device__ __forceinline__ int select_row(float (&x)[kChunks], int causal, const RowRule& rule,
                                          std::uint32_t* mask, int words, int lane) {
  constexpr int kHeld = (kChunks + 31) / 32;  // words of a lane: lane, lane + 32, ...
  std::uint32_t held[kHeld] = {};
  Cut cut = {0, 0, 0};
  if (rule.rule == SelectRule::kThreshold) {
    cut.value = __double2float_rd(rule.value);  // x > value exactly where x > cut.value
  } else if (rule.rule == SelectRule::kNzRatio) {
    cut = find_cut<false>(x, causal, rule);
  } else {
    cut = find_cut<true>(x, causal, rule);
  }
  const bool all_equal = cut.ties > 0 && cut.ties == cut.equal;
  for_chunks<kChunks>(causal, [&](int c) {
    const std::uint32_t bits = __ballot_sync(kAllLanes, all_equal ? x[c] >= cut.value : x[c] > cut.value);
    if (lane == c % 32) held[c / 32] = bits;
  });
  if (cut.ties > 0 && !all_equal) {
    int left = cut.ties;
#pragma unroll
    for (int c = kChunks - 1; c >= 0; --c) {
      if (c * 32 >= causal || left == 0) continue;
      std::uint32_t bits = __ballot_sync(kAllLanes, x[c] == cut.value);
      while (__popc(bits) > left) bits &= bits - 1;
      left -= __popc(bits);
      if (lane == c % 32) held[c / 32] |= bits;
    }
  }
  int count = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) count += __popc(held[i]);
  count = __reduce_add_sync(kAllLanes, count);
  const int diagonal = causal - 1;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int word = i * 32 + lane;
    if (count == 0 && word == diagonal / 32) held[i] = 1u << (diagonal % 32);
    if (word < words) mask[word] = held[i];
  }
  for (int word = kHeld * 32 + lane; word < words; word += 32) mask[word] = 0;
  return max(count, 1);
}

/// Writes a row's mask of the key blocks [begin, end) and, if `sink`, the first one. Returns their number.
__device__ __forceinline__ int fill_row(std::int64_t begin, std::int64_t end, bool sink, std::uint32_t* mask,
                                        int words, int lane) {
  int count = 0;
  for (int word = lane; word < words; word += 32) {
    const std::uint32_t bits = range_bits(word, begin, end) | (sink && word == 0 ? 1u : 0u);
    mask[word] = bits;
    count += __popc(bits);
  }
  return __reduce_add_sync(kAllLanes, count);
}

}  // namespace seer::cuda
