// Selection of blocks by one warp a row, the row's scores in registers: score of key block 32 * c + lane in
// x[c]; what lies after its end is below every score or 0.
//
// All rules but kThreshold keep the best blocks of a row up to some cut. Whether the next block of a given
// score is wanted depends on the number or mass of the better ones alone and falls with the score, so the cut
// is found by bisection until at most 32 blocks are left around it; these are sorted, one a lane.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"
#include "ops/select_params.h"

namespace seer::cuda {

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

/// What turns a row's scores into probabilities: exp2(score * log2(e) - most) * share.
struct Softmax {
  float most;
  float share;

  __device__ float operator()(float score) const {
    return ptx::exp2_approx(fmaf(score, ptx::kLog2E, -most)) * share;
  }
};

/// In place: softmax over the first `causal` blocks; the others become 0.
template <int kChunks>
__device__ __forceinline__ Softmax softmax_row(float (&x)[kChunks], int causal) {
  float most = -INFINITY;
  for_chunks<kChunks>(causal, [&](int c) { most = fmaxf(most, x[c]); });
  most = warp_max(most) * ptx::kLog2E;
  float sum = 0;
  for_chunks<kChunks>(causal, [&](int c) {
    x[c] = ptx::exp2_approx(fmaf(x[c], ptx::kLog2E, -most));
    sum += x[c];
  });
  const float share = 1.0f / warp_sum(sum);
  for_chunks<kChunks>(causal, [&](int c) { x[c] *= share; });
  return {most, share};
}

/// Blocks above `value` are kept, and of those equal to it the last `ties`.
struct Cut {
  float value;
  int ties;
  int equal;  // blocks equal to value
};

/// The blocks above a score.
template <class Mass>
struct Level {
  float at;
  int count;
  Mass mass;  // the sum of their scores, where it is wanted
};

/// The largest float below x.
__device__ __forceinline__ float before(float x) {
  if (x == 0) return -FLT_TRUE_MIN;
  return __int_as_float(__float_as_int(x) + (x > 0 ? -1 : 1));
}

/// Between two scores: in the logarithm where neither is negative.
__device__ __forceinline__ float middle(float low, float high) {
  if (low < -FLT_MIN || !(high > 0)) return low + (high - low) * 0.5f;
  const unsigned a = low > 0 ? __float_as_uint(low) : 0, b = __float_as_uint(high);
  return __uint_as_float(a + (b - a) / 2);
}

__device__ __forceinline__ void add_mass(float& sum, float x) { sum += x; }

/// Volatile, for otherwise the compiler widens a whole row ahead of the loop and spills it.
__device__ __forceinline__ void add_mass(double& sum, float x) {
  asm volatile(
      "{.reg .f64 wide;\n"
      "cvt.f64.f32 wide, %1;\n"
      "add.f64 %0, %0, wide;}"
      : "+d"(sum)
      : "f"(x));
}

template <class Mass, int kChunks>
__device__ __forceinline__ Level<Mass> above(const float (&x)[kChunks], int causal, float at) {
  int count = 0;
  Mass mass = 0;
  for_chunks<kChunks>(causal, [&](int c) {
    if (x[c] > at) {
      ++count;
      add_mass(mass, x[c]);
    }
  });
  return {at, __reduce_add_sync(kAllLanes, count), warp_sum(mass)};
}

/// Sorts one value a lane, the largest first.
template <class T>
__device__ __forceinline__ T sort_lanes(T x, int lane) {
#pragma unroll
  for (int size = 2; size <= 32; size *= 2) {
#pragma unroll
    for (int step = size / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, x, step);
      x = ((lane & size) == 0) == ((lane & step) == 0) ? max(x, other) : min(x, other);
    }
  }
  return x;
}

/// Sum of the values of the lanes before this one.
template <class Mass>
__device__ __forceinline__ Mass sum_before(Mass x, int lane) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Mass other = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += other;
  }
  const Mass previous = __shfl_up_sync(kAllLanes, x, 1);
  return lane == 0 ? 0 : previous;
}

/// The cut of kNzRatio, kTopP or kResidual. value_of(block) is what x holds of a block, from memory; scratch:
/// 32 floats of this warp. A kernel that starts waits for its instructions, so passes over registers, which
/// cannot be loops, are few.
template <class Mass, int kChunks, class ValueOf>
__device__ __forceinline__ Cut find_cut(const float (&x)[kChunks], int causal, const RowRule& rule,
                                        const ValueOf& value_of, float* scratch, int lane) {
  const auto value = static_cast<Mass>(rule.value);
  // Whether a block of this score, with these before it, is still wanted.
  const auto wants = [&](float score, int count, Mass mass) {
    return rule.rule == SelectRule::kNzRatio ? count < rule.k
           : rule.rule == SelectRule::kTopP  ? mass < value
                                             : score * (1 - mass) > value;
  };
  float least = INFINITY, most = -INFINITY;
  for_chunks<kChunks>(causal, [&](int c) {
    most = fmaxf(most, x[c]);
    least = fminf(least, c * 32 + lane < causal ? x[c] : INFINITY);
  });
  // Blocks above top.at are kept, those up to `low` are not.
  Level<Mass> top = {warp_max(most), 0, 0};
  float low = before(-warp_max(-least));
  int low_count = causal;
  // Only blocks above the value can be worth it by kResidual.
  bool starts_at_value = rule.rule == SelectRule::kResidual;
#pragma unroll 1
  while (low_count - top.count > 32) {
    float at = middle(low, top.at);
    if (starts_at_value) at = fmaxf(low, __double2float_rd(rule.value));
    if (!starts_at_value && !(at > low && at < top.at)) {
      // Neighbours: everything that is left has the score top.at.
      Cut cut = {top.at, 0, low_count - top.count};
#pragma unroll 1
      for (; cut.ties < cut.equal && wants(top.at, top.count + cut.ties, top.mass); ++cut.ties)
        add_mass(top.mass, top.at);
      return cut;
    }
    const Level<Mass> level = above<Mass>(x, causal, at);
    if (rule.rule == SelectRule::kNzRatio && level.count == rule.k) return {at, 0, 0};
    if (!starts_at_value && wants(at, level.count, level.mass)) {
      top = level;
    } else {
      low = at;
      low_count = level.count;
    }
    starts_at_value = false;
  }
  int left = 0;
#pragma unroll 1
  for (int block = lane; block - lane < causal; block += 32) {
    const float score = block < causal ? value_of(block) : -INFINITY;
    const bool is_left = score > low && score <= top.at;
    const unsigned lanes = __ballot_sync(kAllLanes, is_left);
    if (is_left) scratch[left + __popc(lanes & ((1u << lane) - 1))] = score;
    left += __popc(lanes);
  }
  __syncwarp();
  const float score = sort_lanes(lane < left ? scratch[lane] : -INFINITY, lane);
  __syncwarp();
  const Mass mass = top.mass + sum_before(lane < left ? static_cast<Mass>(score) : Mass{0}, lane);
  const unsigned wanted = __ballot_sync(kAllLanes, lane < left && wants(score, top.count + lane, mass));
  const int kept = wanted == kAllLanes ? 32 : __ffs(~wanted) - 1;
  if (kept == 0) return {top.at, 0, 0};
  const float last = __shfl_sync(kAllLanes, score, kept - 1);
  const unsigned equal = __ballot_sync(kAllLanes, lane < left && score == last);
  return {last, __popc(equal & (kAllLanes >> (32 - kept))), __popc(equal)};
}

/// Bits of the key blocks [32 * word, 32 * word + 32) that lie in [begin, end).
__device__ __forceinline__ std::uint32_t range_bits(int word, int begin, int end) {
  const auto below = [word](int limit) {
    const int bits = limit - word * 32;
    return bits >= 32 ? ~0u : bits <= 0 ? 0u : (1u << bits) - 1;
  };
  return below(end) & ~below(begin);
}

/// Writes the row's mask by the rule on its scores (kNzRatio: any, otherwise probabilities): `words` words of
/// 32 bits. Returns the number of blocks kept. Mass: the type in which probabilities are summed. value_of,
/// scratch: as find_cut's.
template <class Mass, int kChunks, class ValueOf>
__device__ __forceinline__ int select_row(const float (&x)[kChunks], int causal, const RowRule& rule,
                                          const ValueOf& value_of, float* scratch, std::uint32_t* mask,
                                          int words, int lane) {
  constexpr int kHeld = (kChunks + 31) / 32;  // words of a lane: lane, lane + 32, ...
  std::uint32_t held[kHeld] = {};
  Cut cut = {__double2float_rd(rule.value), 0, 0};  // kThreshold: x > value exactly where x > cut.value
  if (rule.rule != SelectRule::kThreshold) cut = find_cut<Mass>(x, causal, rule, value_of, scratch, lane);
  const bool all_equal = cut.ties > 0 && cut.ties == cut.equal;
  const float least = all_equal ? before(cut.value) : cut.value;
  for_chunks<kChunks>(causal, [&](int c) {
    const std::uint32_t bits = __ballot_sync(kAllLanes, x[c] > least);
    if (lane == c % 32) held[c / 32] = bits;
  });
  if (cut.ties > 0 && !all_equal) {
    int left = cut.ties;
#pragma unroll 1
    for (int c = (causal - 1) / 32; left > 0; --c) {
      const int block = c * 32 + lane;
      std::uint32_t bits = __ballot_sync(kAllLanes, block < causal && value_of(block) == cut.value);
#pragma unroll 1
      while (__popc(bits) > left) bits &= bits - 1;
      left -= __popc(bits);
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
        if (c == i * 32 + lane) held[i] |= bits;
    }
  }
  int count = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    held[i] &= range_bits(i * 32 + lane, 0, causal);
    count += __popc(held[i]);
  }
  count = __reduce_add_sync(kAllLanes, count);
  const int diagonal = causal - 1;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int word = i * 32 + lane;
    if (count == 0 && word == diagonal / 32) held[i] = 1u << (diagonal % 32);
    if (word < words) mask[word] = held[i];
  }
#pragma unroll 1
  for (int word = kHeld * 32 + lane; word < words; word += 32) mask[word] = 0;
  return max(count, 1);
}

/// Writes a row's mask of the key blocks [begin, end) and, if `sink`, the first one. Returns their number.
__device__ __forceinline__ int fill_row(int begin, int end, bool sink, std::uint32_t* mask, int words,
                                        int lane) {
  int count = 0;
#pragma unroll 1
  for (int word = lane; word < words; word += 32) {
    const std::uint32_t bits = range_bits(word, begin, end) | (sink && word == 0 ? 1u : 0u);
    mask[word] = bits;
    count += __popc(bits);
  }
  return __reduce_add_sync(kAllLanes, count);
}

}  // namespace seer::cuda
