// The blocks of one list that its scores select, by a CTA: block kThreads * i + t in register i of thread t,
// so that a warp's ballot is a word of the mask. The cut of a budget is found by quartering: three counts a
// step and one barrier.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/decode_gate.cuh"
#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"
#include "cuda/select.cuh"

namespace seer::cuda::decode_gate_cta {

struct BlockRule {
  float threshold;  // a probability is above it exactly where it is above the double
  int budget;       // blocks; 0: by the threshold
};

/// Calls body(i, block) for the registers of a thread that may hold one of the first `blocks` blocks.
template <int kMine, class Body>
__device__ __forceinline__ void for_blocks(int blocks, const Body& body) {
  for_chunks<kMine>((blocks + kWarps - 1) / kWarps,
                    [&](int i) { body(i, i * kThreads + static_cast<int>(threadIdx.x)); });
}

/// Values of the CTA's warps, met in a fixed order. Two sets in turn need one barrier a meeting.
struct Meeting {
  float2 pairs[2][kWarps];
  float values[2][kWarps];
  uint2 counts[2][kWarps];
};

template <class T, class Join>
__device__ __forceinline__ T meet(T (&slots)[2][kWarps], int& turn, T of_warp, const Join& join) {
  if (threadIdx.x % 32 == 0) slots[turn][threadIdx.x / 32] = of_warp;
  __syncthreads();
  T all = slots[turn][0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) all = join(all, slots[turn][warp]);
  turn ^= 1;
  return all;
}

/// Three counts of a warp, at most 512 each, in one word.
__device__ __forceinline__ unsigned packed_counts(bool first, bool second, bool third) {
  return (first ? 1u : 0u) + (second ? 1u << 10 : 0u) + (third ? 1u << 20 : 0u);
}

/// The sums of the warps' packed counts; the third below 4096.
__device__ __forceinline__ int3 add_packed_counts(Meeting& meeting, int& turn, unsigned of_warp) {
  constexpr unsigned kOuter = 0x3ff003ff;
  // The first and the third count have room for their sums, the second one without them.
  const uint2 sums = meet(meeting.counts, turn, uint2{of_warp & kOuter, of_warp & ~kOuter},
                          [](const uint2& a, const uint2& b) {
                            return uint2{a.x + b.x, a.y + b.y};
                          });
  return {static_cast<int>(sums.x & 0xfffff), static_cast<int>(sums.y >> 10), static_cast<int>(sums.x >> 20)};
}

/// The best k of more than k scores, -infinity after the last one: those above `value`, and the last `ties`
/// of those equal to it.
template <int kMine>
__device__ __forceinline__ Cut top_k_cut(const float (&x)[kMine], int blocks, int k, Meeting& meeting,
                                         int& turn) {
  float most = -INFINITY, least = INFINITY;
  for_blocks<kMine>(blocks, [&](int i, int block) {
    most = fmaxf(most, x[i]);
    if (block < blocks) least = fminf(least, x[i]);
  });
  const float2 ends = meet(meeting.pairs, turn, float2{warp_max(most), warp_max(-least)},
                           [](const float2& a, const float2& b) {
                             return float2{fmaxf(a.x, b.x), fmaxf(a.y, b.y)};
                           });
  float high = ends.x, low = before(-ends.y);
  int above_high = 0;
#pragma unroll 1
  while (true) {  // fewer than k are above `high`, more than k above `low`
    const float half = middle(low, high);
    if (!(half > low && half < high)) return {high, k - above_high, 0};
    const float first = middle(low, half), third = middle(half, high);
    static_assert(kMine * 32 <= 512);
    unsigned mine = 0;
    for_blocks<kMine>(blocks,
                      [&](int i, int) { mine += packed_counts(x[i] > first, x[i] > half, x[i] > third); });
    const int3 above = add_packed_counts(meeting, turn, __reduce_add_sync(kAllLanes, mine));
    if (above.y == k) return {half, 0, 0};
    const bool lower = above.y < k;
    const float at = lower ? first : third;
    const int count = lower ? above.x : above.z;
    if (count == k) return {at, 0, 0};
    if (lower) {
      high = half;
      above_high = above.y;
    } else {
      low = half;
    }
    if (count < k) {
      high = at;
      above_high = count;
    } else {
      low = at;
    }
  }
}

/// In place: the softmax of scores as top_k_cut takes them.
template <int kMine>
__device__ __forceinline__ void softmax(float (&x)[kMine], int blocks, Meeting& meeting, int& turn) {
  float most = -INFINITY;
  for_blocks<kMine>(blocks, [&](int i, int) { most = fmaxf(most, x[i]); });
  most =
      meet(meeting.values, turn, warp_max(most), [](float a, float b) { return fmaxf(a, b); }) * ptx::kLog2E;
  float sum = 0;
  for_blocks<kMine>(blocks,
                    [&](int i, int) { sum += x[i] = ptx::exp2_approx(fmaf(x[i], ptx::kLog2E, -most)); });
  const float share =
      1.0f / meet(meeting.values, turn, warp_sum(sum), [](float a, float b) { return a + b; });
  for_blocks<kMine>(blocks, [&](int i, int) { x[i] *= share; });
}

template <int kMine>
struct SelectShared {
  Meeting meeting;
  std::uint32_t equal[kMine * kWarps];  // bits of the blocks at the cut
};

/// Keeps of the blocks in `equal` the last `ties` only.
__device__ __forceinline__ void keep_last(std::uint32_t* equal, int words, int ties) {
  for (int word = words - 1; word >= 0; --word) {
    while (__popc(equal[word]) > ties) equal[word] &= equal[word] - 1;
    ties -= __popc(equal[word]);
  }
}

/// Writes the mask of a list by its blocks' scores, -infinity after the last one; all threads of a CTA.
/// Returns the number of blocks that the warp kept.
template <int kMine>
__device__ __forceinline__ int select_by_scores(float (&x)[kMine], int blocks, const BlockRule& rule,
                                                std::uint32_t* mask, int words, SelectShared<kMine>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int used_words = (blocks + 31) / 32;
  int turn = 0;
  Cut cut = {rule.threshold, 0, 0};
  if (rule.budget > 0) {
    cut = top_k_cut(x, blocks, rule.budget, shared.meeting, turn);
  } else {
    softmax(x, blocks, shared.meeting, turn);
  }
  if (cut.ties > 0) {
    for_blocks<kMine>(blocks, [&](int i, int block) {
      const std::uint32_t equal = __ballot_sync(kAllLanes, block < blocks && x[i] == cut.value);
      if (lane == 0) shared.equal[i * kWarps + warp] = equal;
    });
    __syncthreads();
    if (threadIdx.x == 0) keep_last(shared.equal, used_words, cut.ties);
    __syncthreads();
  }
  int count = 0;
  for_blocks<kMine>(blocks, [&](int i, int block) {
    const int word = i * kWarps + warp;
    std::uint32_t bits =
        __ballot_sync(kAllLanes, block < blocks && (x[i] > cut.value || block == blocks - 1));
    if (word >= used_words) return;
    if (cut.ties > 0) bits |= shared.equal[word];
    count += __popc(bits);
    if (lane == 0) mask[word] = bits;
  });
  for (int word = used_words + static_cast<int>(threadIdx.x); word < words; word += kThreads) mask[word] = 0;
  return count;
}

}  // namespace seer::cuda::decode_gate_cta
