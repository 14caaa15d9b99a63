#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "core/mix.h"
#include "cuda/device_array.h"
#include "cuda/gate_launch.h"
#include "cuda/select.cuh"

namespace seer::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

/// Adds each warp's count to the counter; by every thread of the CTA.
__device__ void add_selected(std::uint64_t* selected_blocks, int count) {
  if (selected_blocks == nullptr || threadIdx.x % 32 != 0 || count == 0) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(selected_blocks), static_cast<unsigned long long>(count));
}

/// A warp a row, the rows of all heads in their order.
__device__ __forceinline__ std::int64_t warp_row() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
}

unsigned row_grid(std::int64_t rows) { return static_cast<unsigned>((rows + kWarps - 1) / kWarps); }

template <int kChunks>
__global__ void __launch_bounds__(kThreads) select_blocks_kernel(SelectBlocksParams p, RowRule rule) {
  __shared__ float scratch[kWarps][32];
  const std::int64_t item = warp_row();
  if (item >= p.heads * p.rows) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t block_row = p.first_row + item % p.rows;
  const int causal = static_cast<int>(block_row) + 1;
  const int words = static_cast<int>(2 * p.mask_words);
  std::uint32_t* mask = reinterpret_cast<std::uint32_t*>(p.mask + item * p.mask_words);
  if (block_row >= rule.dense_from || (rule.rule == SelectRule::kNzRatio && rule.k >= causal)) {
    add_selected(p.selected_blocks, fill_row(0, causal, false, mask, words, lane));
    return;
  }
  if (p.value != nullptr) rule.value = *p.value;
  const float* row = p.scores + item * p.stride;
  float x[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) x[c] = c * 32 + lane < causal ? row[c * 32 + lane] : -INFINITY;
  add_selected(p.selected_blocks, select_row<double>(
                                      x, causal, rule, [row](int block) { return row[block]; },
                                      scratch[threadIdx.x / 32], mask, words, lane));
}

__global__ void __launch_bounds__(kThreads) select_sink_local_kernel(BaselineMask p) {
  const std::int64_t item = warp_row();
  if (item >= p.heads * p.rows) return;
  const std::int64_t block_row = p.first_row + item % p.rows;
  const int causal = static_cast<int>(block_row) + 1;
  const int band = block_row >= p.dense_from ? causal : static_cast<int>(max(std::int64_t{1}, p.k - 1));
  add_selected(p.selected_blocks, fill_row(max(0, causal - band), causal, true,
                                           reinterpret_cast<std::uint32_t*>(p.mask + item * p.mask_words),
                                           static_cast<int>(2 * p.mask_words), threadIdx.x % 32));
}

/// Keeps the diagonal block and the k - 1 blocks before it whose random numbers are largest, the later ones
/// of equal numbers. The cut is found bit by bit; numbers are drawn again each time.
__global__ void __launch_bounds__(kThreads) select_random_kernel(BaselineMask p, std::uint64_t layer_stream) {
  const std::int64_t item = warp_row();
  if (item >= p.heads * p.rows) return;
  const int lane = threadIdx.x % 32;
  const int diagonal = static_cast<int>(p.first_row + item % p.rows);
  const int words = static_cast<int>(2 * p.mask_words);
  std::uint32_t* mask = reinterpret_cast<std::uint32_t*>(p.mask + item * p.mask_words);
  if (p.k > diagonal || diagonal >= p.dense_from) {
    add_selected(p.selected_blocks, fill_row(0, diagonal + 1, false, mask, words, lane));
    return;
  }
  const std::uint64_t stream = mix(mix(layer_stream ^ static_cast<std::uint64_t>(item / p.rows)) ^
                                   static_cast<std::uint64_t>(diagonal));
  const auto number = [&](int block) {
    return static_cast<std::uint32_t>(mix(stream ^ static_cast<std::uint64_t>(block)) >> 32);
  };
  const auto count_from = [&](std::uint32_t least) {
    int count = 0;
    for (int j = lane; j < diagonal; j += 32) count += number(j) >= least;
    return __reduce_add_sync(kAllLanes, count);
  };
  const int wanted = static_cast<int>(p.k) - 1;
  std::uint32_t cut = 0;  // the largest number that `wanted` blocks reach
  for (std::uint32_t bit = 1u << 31; bit != 0; bit /= 2)
    if (count_from(cut | bit) >= wanted) cut |= bit;
  int ties = wanted - (cut == ~0u ? 0 : count_from(cut + 1));
  for (int word = words - 1; word >= 0; --word) {
    const int block = word * 32 + lane;
    const bool drawn = block < diagonal && wanted > 0;
    std::uint32_t bits = __ballot_sync(kAllLanes, drawn && number(block) > cut);
    std::uint32_t equal = __ballot_sync(kAllLanes, drawn && number(block) == cut);
    while (__popc(equal) > ties) equal &= equal - 1;
    ties -= __popc(equal);
    bits |= equal | range_bits(word, diagonal, diagonal + 1);
    if (lane == 0) mask[word] = bits;
  }
  add_selected(p.selected_blocks, static_cast<int>(p.k));
}

/// The state of threshold_for_density's bisection.
struct Bisection {
  double low, high;         // logarithms
  unsigned long long kept;  // blocks above exp((low + high) / 2), once all CTAs have counted
  unsigned finished;        // CTAs
};
static_assert(sizeof(Bisection) <= kThresholdWorkspace);

__global__ void start_bisection(Bisection* state) { *state = {log(1e-12), 0, 0, 0}; }

__global__ void __launch_bounds__(kThreads)
    bisect_kernel(const float* probabilities, std::int64_t stride, std::int64_t all_rows, std::int64_t rows,
                  std::int64_t first_row, double wanted, Bisection* state, double* threshold) {
  __shared__ int kept[kWarps];
  const int lane = threadIdx.x % 32;
  const double middle = (state->low + state->high) / 2;
  const float limit = __double2float_rd(exp(middle));
  int count = 0;
  for (std::int64_t row = warp_row(); row < all_rows; row += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    const std::int64_t causal = first_row + row % rows + 1;
    int in_row = 0;
    for (std::int64_t j = lane; j < causal; j += 32) in_row += probabilities[row * stride + j] > limit;
    count += max(__reduce_add_sync(kAllLanes, in_row), 1);
  }
  if (lane == 0) kept[threadIdx.x / 32] = count;
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned long long total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += kept[warp];
  atomicAdd(&state->kept, total);
  __threadfence();
  if (atomicAdd(&state->finished, 1u) + 1 < gridDim.x) return;
  (static_cast<double>(atomicAdd(&state->kept, 0ull)) > wanted ? state->low : state->high) = middle;
  state->kept = 0;
  state->finished = 0;
  *threshold = exp(state->high);
}

}  // namespace

void launch_select_blocks(const SelectBlocksParams& p, CUstream_st* stream) {
  const RowRule rule = row_rule(p.select);
  const std::int64_t blocks = p.first_row + p.rows;
  const auto kernel = blocks <= 512    ? select_blocks_kernel<16>
                      : blocks <= 2048 ? select_blocks_kernel<64>
                                       : select_blocks_kernel<128>;
  kernel<<<row_grid(p.heads * p.rows), kThreads, 0, stream>>>(p, rule);
  check(cudaGetLastError(), "select_blocks");
}

void launch_select_sink_local(const BaselineMask& mask, CUstream_st* stream) {
  select_sink_local_kernel<<<row_grid(mask.heads * mask.rows), kThreads, 0, stream>>>(mask);
  check(cudaGetLastError(), "select_sink_local");
}

void launch_select_random(const BaselineMask& mask, std::uint64_t seed, int layer, CUstream_st* stream) {
  select_random_kernel<<<row_grid(mask.heads * mask.rows), kThreads, 0, stream>>>(
      mask, mix(mix(seed) ^ static_cast<std::uint64_t>(layer)));
  check(cudaGetLastError(), "select_random");
}

void launch_threshold_for_density(const float* probabilities, std::int64_t stride, int heads,
                                  std::int64_t first_row, std::int64_t rows, double density,
                                  double* threshold, void* workspace, CUstream_st* stream) {
  constexpr int kSteps = 40;
  constexpr std::int64_t kMostCtas = 2048;
  const std::int64_t all_rows = heads * rows;
  const double wanted = density * static_cast<double>(heads * (rows * first_row + rows * (rows + 1) / 2));
  Bisection* state = static_cast<Bisection*>(workspace);
  start_bisection<<<1, 1, 0, stream>>>(state);
  for (int step = 0; step < kSteps; ++step) {
    bisect_kernel<<<static_cast<unsigned>(std::min<std::int64_t>(row_grid(all_rows), kMostCtas)), kThreads, 0,
                    stream>>>(probabilities, stride, all_rows, rows, first_row, wanted, state, threshold);
  }
  check(cudaGetLastError(), "threshold_for_density");
}

}  // namespace seer::cuda
