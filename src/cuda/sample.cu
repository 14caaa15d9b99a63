// A cluster of CTAs shares a row. Cuts and the draw itself are one operation: the first token, in the order
// of TokenDraw, up to which tokens count or weigh more than a target. It is found digit by digit of an
// integer that orders the tokens, by a histogram of the digit's values; nothing is sorted.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cmath>

#include "cuda/check.h"
#include "cuda/lanes.cuh"
#include "cuda/sample.h"

namespace seer::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kCtas = 8, kThreads = 1024, kWarps = kThreads / 32;
constexpr int kDigitBits = 11, kDigits = 5, kBins = 1 << kDigitBits;
constexpr int kIdBits = 24;  // and 31 of the distance
static_assert(kDigits * kDigitBits == 31 + kIdBits && kBins == 2 * kThreads);
constexpr std::int64_t kMaxVocab = std::int64_t{1} << 23;  // all weights together stay below 2^64
constexpr std::uint64_t kNaN = ~std::uint64_t{0};          // above every number

struct Shared {
  // 64-bit sums in halves: shared memory adds 32 bits at a time.
  alignas(8) std::uint32_t low[kBins];
  alignas(8) std::uint32_t high[kBins];
  std::uint64_t warps[kWarps];
  std::uint64_t largest;
  std::uint64_t target;
  std::uint32_t digit;
};

/// A row as its threads see it.
struct Row {
  const float* logits;
  std::int64_t vocab;
  float largest;

  __device__ float distance(std::int64_t id) const { return largest - logits[id]; }
};

/// Calls visit(id) for the ids of this thread.
template <class Visit>
__device__ __forceinline__ void for_ids(std::int64_t vocab, Visit&& visit) {
  for (std::int64_t id = blockIdx.x * kThreads + threadIdx.x; id < vocab; id += kCtas * kThreads) visit(id);
}

/// Rises with the distance (0 or more) and then with the id.
__device__ __forceinline__ std::uint64_t key_of(float distance, std::int64_t id) {
  return static_cast<std::uint64_t>(__float_as_uint(distance)) << kIdBits | static_cast<std::uint64_t>(id);
}

/// Falls with the value and then with the index; NaN is above all.
__device__ __forceinline__ std::uint64_t ordered(float value, std::int64_t index) {
  if (isnan(value)) return kNaN;
  const auto bits = __float_as_uint(value + 0.0f);  // -0 is 0
  const std::uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<std::uint64_t>(rising) << 32 | (0xffffffffu - static_cast<std::uint32_t>(index));
}

/// The id of the row's largest logit, the first of equals; -1 if one is NaN.
__device__ std::int32_t largest_id(const cg::cluster_group& cluster, Shared& shared, const float* logits,
                                   std::int64_t vocab) {
  std::uint64_t best = 0;
  for_ids(vocab, [&](std::int64_t id) { best = max(best, ordered(logits[id], id)); });
  const auto of_warp = [](std::uint64_t value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value = max(value, __shfl_xor_sync(kAllLanes, value, step));
    return value;
  };
  best = of_warp(best);
  if (threadIdx.x % 32 == 0) shared.warps[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x < 32) {
    best = of_warp(shared.warps[threadIdx.x]);
    if (threadIdx.x == 0) shared.largest = best;
  }
  cluster.sync();
  best = 0;
  for (unsigned rank = 0; rank < kCtas; ++rank)
    best = max(best, *cluster.map_shared_rank(&shared.largest, rank));
  cluster.sync();  // nobody leaves while others read
  return best == kNaN ? -1 : static_cast<std::int32_t>(0xffffffffu - static_cast<std::uint32_t>(best));
}

/// bin += amount. The sum's carries are as many in any order.
__device__ __forceinline__ void add(Shared& shared, std::uint32_t bin, std::uint64_t amount) {
  const auto low = static_cast<std::uint32_t>(amount);
  auto high = static_cast<std::uint32_t>(amount >> 32);
  if (atomicAdd(&shared.low[bin], low) > ~low) ++high;
  if (high != 0) atomicAdd(&shared.high[bin], high);
}

/// The sum over the cluster of one bin's pair, 2 i and 2 i + 1, of every thread i.
__device__ __forceinline__ void gather(const cg::cluster_group& cluster, Shared& shared,
                                       std::uint64_t (&sums)[2]) {
  sums[0] = sums[1] = 0;
#pragma unroll
  for (unsigned rank = 0; rank < kCtas; ++rank) {
    const Shared* other = cluster.map_shared_rank(&shared, rank);
    const uint2 low = *reinterpret_cast<const uint2*>(other->low + 2 * threadIdx.x);
    const uint2 high = *reinterpret_cast<const uint2*>(other->high + 2 * threadIdx.x);
    sums[0] += static_cast<std::uint64_t>(high.x) << 32 | low.x;
    sums[1] += static_cast<std::uint64_t>(high.y) << 32 | low.y;
  }
}

/// Sum over the lanes up to this one.
__device__ __forceinline__ std::uint64_t scan_warp(std::uint64_t value) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const std::uint64_t before = __shfl_up_sync(kAllLanes, value, step);
    if (threadIdx.x % 32 >= step) value += before;
  }
  return value;
}

/// The key of the first token, among those with keys up to `limit`, up to which the tokens' amount(distance)
/// adds up to more than target_of(sum of all). target_of's value is below that sum. For every thread of the
/// cluster.
template <class Amount, class Target>
__device__ std::uint64_t find(const cg::cluster_group& cluster, Shared& shared, const Row& row,
                              std::uint64_t limit, Amount&& amount, Target&& target_of) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  std::uint64_t prefix = 0;  // the digits found so far
  for (int digit = 0; digit < kDigits; ++digit) {
    const int shift = (kDigits - 1 - digit) * kDigitBits;
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) shared.low[bin] = shared.high[bin] = 0;
    __syncthreads();
    for_ids(row.vocab, [&](std::int64_t id) {
      const float distance = row.distance(id);
      const std::uint64_t key = key_of(distance, id);
      if (key > limit || key >> (shift + kDigitBits) != prefix) return;
      const std::uint64_t value = amount(distance);
      if (value != 0) add(shared, static_cast<std::uint32_t>(key >> shift) & (kBins - 1), value);
    });
    cluster.sync();
    std::uint64_t sums[2];
    gather(cluster, shared, sums);
    const std::uint64_t in_warp = scan_warp(sums[0] + sums[1]);
    if (lane == 31) shared.warps[warp] = in_warp;
    __syncthreads();
    const std::uint64_t warps = scan_warp(shared.warps[lane]);
    const std::uint64_t total = __shfl_sync(kAllLanes, warps, 31);
    const std::uint64_t up_to = in_warp + __shfl_sync(kAllLanes, warps, warp) - shared.warps[warp];
    const std::uint64_t before = up_to - sums[0] - sums[1];
    const std::uint64_t target = digit == 0 ? target_of(total) : shared.target;
    __syncthreads();  // shared.target is read before one thread writes it
    if (before <= target && target < up_to) {
      const bool second = target >= before + sums[0];
      shared.digit = 2 * threadIdx.x + (second ? 1 : 0);
      shared.target = target - before - (second ? sums[0] : 0);
    }
    cluster.sync();  // and nobody clears or leaves while others read
    prefix = prefix << kDigitBits | shared.digit;
  }
  return prefix;
}

__global__ void __cluster_dims__(kCtas, 1, 1) __launch_bounds__(kThreads)
    sample_kernel(const float* __restrict__ logits, std::int64_t vocab, const TokenDraw* __restrict__ draws,
                  std::int32_t* __restrict__ out) {
  __shared__ Shared shared;
  const cg::cluster_group cluster = cg::this_cluster();
  const float* row_logits = logits + blockIdx.y * vocab;
  const TokenDraw draw = draws[blockIdx.y];
  const bool writes = blockIdx.x == 0 && threadIdx.x == 0;
  const std::int32_t best = largest_id(cluster, shared, row_logits, vocab);
  if (best < 0 || draw.temperature == 0) {
    if (writes) out[blockIdx.y] = best;
    return;
  }
  const Row row{row_logits, vocab, row_logits[best]};
  if (isinf(row.largest)) {
    if (writes) out[blockIdx.y] = -1;
    return;
  }

  const auto share = [&](float distance) { return expf(-distance / draw.temperature); };
  const auto weight = [](float share) { return __float2ull_rn(share * 0x1p40f); };
  std::uint64_t limit = ~std::uint64_t{0};
  if (draw.top_k > 0 && draw.top_k < vocab)
    limit = find(
        cluster, shared, row, limit, [](float) { return std::uint64_t{1}; },
        [&](std::uint64_t) { return static_cast<std::uint64_t>(draw.top_k - 1); });
  if (draw.top_p < 1)
    limit = find(
        cluster, shared, row, limit, [&](float distance) { return weight(share(distance)); },
        [&](std::uint64_t total) {
          const double reached = ceil(static_cast<double>(draw.top_p) * static_cast<double>(total));
          return min(static_cast<std::uint64_t>(reached), std::uint64_t{total}) - 1;
        });
  const std::uint64_t drawn = find(
      cluster, shared, row, limit,
      [&](float distance) {
        const float p = share(distance);
        return p < draw.min_p ? 0 : weight(p);
      },
      [&](std::uint64_t total) {
        const double point = draw.uniform * static_cast<double>(total);
        return min(static_cast<std::uint64_t>(point), total - 1);
      });
  if (writes) out[blockIdx.y] = static_cast<std::int32_t>(drawn & ((std::uint64_t{1} << kIdBits) - 1));
}

}  // namespace

void sample(const float* logits, std::int64_t rows, std::int64_t vocab, const TokenDraw* draws,
            std::int32_t* out, Stream stream) {
  if (rows == 0) return;
  require(rows <= 65535, "sample: expected at most 65535 rows", rows);
  require(vocab > 0 && vocab <= kMaxVocab, "sample: expected a vocabulary of 1 to 2^23", vocab);
  const dim3 grid(kCtas, static_cast<unsigned>(rows));
  sample_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(logits, vocab, draws, out);
  check(cudaGetLastError(), "sample");
}

}  // namespace seer::cuda
