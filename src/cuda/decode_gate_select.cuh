// The blocks of one list that its scores select, by a CTA: block kThreads * i + t in register i of thread t,
// so that a warp's ballot is a word of the mask. The cut of a budget is found by bisection.
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

/// Values of the CTA's warps, met in a fixed order. Two sets in turn need one barrier a meeting.
struct Meeting {
  float values[2][kWarps];
  int counts[2][kWarps];
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

__device__ __forceinline__ int add_counts(Meeting& meeting, int& turn, int count) {
  return meet(meeting.counts, turn, __reduce_add_sync(kAllLanes, count), [](int a, int b) { return a + b; });
}

/// The best k of more than k scores, block 256 * i + threadIdx.x in x[i], -infinity after the last one: those
/// above `value`, and the last `ties` of those equal to it.
template <int kMine>
__device__ __forceinline__ Cut top_k_cut(const float (&x)[kMine], int blocks, int k, Meeting& meeting,
                                         int& turn) {
  float most = -INFINITY, least = INFINITY;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    most = fmaxf(most, x[i]);
    if (i * kThreads + static_cast<int>(threadIdx.x) < blocks) least = fminf(least, x[i]);
  }
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  float high = meet(meeting.values, turn, warp_max(most), larger);
  float low = before(-meet(meeting.values, turn, warp_max(-least), larger));
  int above_high = 0;
#pragma unroll 1
  while (true) {  // fewer than k are above `high`, more than k above `low`
    const float at = middle(low, high);
    if (!(at > low && at < high)) return {high, k - above_high, 0};
    int mine = 0;
#pragma unroll
    for (int i = 0; i < kMine; ++i) mine += x[i] > at;
    const int count = add_counts(meeting, turn, mine);
    if (count == k) return {at, 0, 0};
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
__device__ __forceinline__ void softmax(float (&x)[kMine], Meeting& meeting, int& turn) {
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kMine; ++i) most = fmaxf(most, x[i]);
  most = meet(meeting.values, turn, warp_max(most), [](float a, float b) { return fmaxf(a, b); }) * kLog2E;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) sum += x[i] = ptx::exp2_approx(fmaf(x[i], kLog2E, -most));
  const float share =
      1.0f / meet(meeting.values, turn, warp_sum(sum), [](float a, float b) { return a + b; });
#pragma unroll
  for (int i = 0; i < kMine; ++i) x[i] *= share;
}

template <int kMine>
struct SelectShared {
  Meeting meeting;
  std::uint32_t equal[kMine * kWarps];  // bits of the blocks at the cut
};

/// Keeps of the blocks in `equal` the last `ties` only.
template <int kMine>
__device__ __forceinline__ void keep_last(std::uint32_t (&equal)[kMine * kWarps], int ties) {
  for (int word = kMine * kWarps - 1; word >= 0; --word) {
    while (__popc(equal[word]) > ties) equal[word] &= equal[word] - 1;
    ties -= __popc(equal[word]);
  }
}

/// Writes the mask of the row by its scores; all threads of a CTA. Returns the number of blocks kept.
template <int kMine>
__device__ __forceinline__ int select_by_scores(float (&x)[kMine], int blocks, const BlockRule& rule,
                                                std::uint32_t* mask, int words, SelectShared<kMine>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int turn = 0;
  Cut cut = {rule.threshold, 0, 0};
  if (rule.budget > 0) {
    cut = top_k_cut(x, blocks, rule.budget, shared.meeting, turn);
  } else {
    softmax(x, shared.meeting, turn);
  }
  if (cut.ties > 0) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const std::uint32_t equal = __ballot_sync(
          kAllLanes, i * kThreads + static_cast<int>(threadIdx.x) < blocks && x[i] == cut.value);
      if (lane == 0) shared.equal[i * kWarps + warp] = equal;
    }
    __syncthreads();
    if (threadIdx.x == 0) keep_last<kMine>(shared.equal, cut.ties);
    __syncthreads();
  }
  int count = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int word = i * kWarps + warp;
    std::uint32_t bits = __ballot_sync(kAllLanes, x[i] > cut.value) & range_bits(word, 0, blocks);
    if (cut.ties > 0) bits |= shared.equal[word];
    bits |= range_bits(word, blocks - 1, blocks);
    count += __popc(bits);
    if (lane == 0 && word < words) mask[word] = bits;
  }
  for (int word = kMine * kWarps + threadIdx.x; word < words; word += kThreads) mask[word] = 0;
  return meet(shared.meeting.counts, turn, count, [](int a, int b) { return a + b; });
}

}  // namespace seer::cuda::decode_gate_cta
