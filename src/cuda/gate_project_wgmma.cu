// Projections of pooled queries and keys with RoPE, for output sizes 64 and 128.
//
// A CTA keeps one head's weights in shared memory, in slices of 64 of their rows, and passes over tiles of 64
// or 128 block rows, whose slices of 64 columns come through a ring. A warpgroup owns 64 rows and every
// column, hence both columns of each pair that RoPE rotates. One more warp drives the copy engine; the
// weights are on their way before the kernel that pools the rows has ended.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/gate_launch.h"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/tile.cuh"
#include "cuda/workspace.h"

namespace seer::cuda {
namespace {

using Element = __nv_bfloat16;

constexpr int kStages = 6;
constexpr int kMostSlices = 8;

template <int kGroups>
struct Shared {
  alignas(1024) std::uint8_t x[kStages][kGroups][kPanelBytes];
  std::uint64_t x_full[kStages];
  std::uint64_t x_empty[kStages];
  std::uint64_t w_full[kMostSlices];
  // Then, 1024-byte aligned: the weights, [slice][column panel].
};

template <int kDim, int kGroups>
__global__ void __launch_bounds__(128 * kGroups + 32, 1)
    gate_project_kernel(const __grid_constant__ GateProjectMaps maps, GateProjectParams p) {
  using Memory = Shared<kGroups>;
  constexpr int kRows = kBlock * kGroups, kHalf = kDim / 2, kSliceBytes = kDim / 64 * kPanelBytes;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  Memory& shared = *reinterpret_cast<Memory*>(memory);
  std::uint8_t* const weights = memory + sizeof(Memory);
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const int head = static_cast<int>(blockIdx.x);
  const int slices = p.in_dim / kBlock;
  const int row_tiles = static_cast<int>((p.n + kRows - 1) / kRows);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(ptx::shared_address(&shared.x_full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.x_empty[i]), 4 * kGroups);
    }
    for (int i = 0; i < slices; ++i) ptx::mbarrier_init(ptx::shared_address(&shared.w_full[i]), 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  ptx::let_next_kernel_start();

  if (warp == 4 * kGroups) {
    if (lane != 0) return;
    for (int slice = 0; slice < slices; ++slice) {
      const std::uint32_t full = ptx::shared_address(&shared.w_full[slice]);
      ptx::mbarrier_arrive_expect(full, kSliceBytes);
      ptx::load_box_5d(ptx::shared_address(weights + slice * kSliceBytes), &maps.w, full, 0,
                       head * p.in_dim + slice * kBlock, 0, 0, 0);
    }
    ptx::wait_for_previous_kernel();
    const int first_panel = head / (p.heads / p.x_heads) * slices;
    Ring<kStages> ring{.parity = 1};
#pragma unroll 1
    for (int tile = static_cast<int>(blockIdx.y); tile < row_tiles; tile += static_cast<int>(gridDim.y)) {
#pragma unroll 1
      for (int slice = 0; slice < slices; ++slice) {
        const std::uint32_t full = ptx::shared_address(&shared.x_full[ring.slot]);
        ptx::mbarrier_wait(ptx::shared_address(&shared.x_empty[ring.slot]), ring.parity);
        ptx::mbarrier_arrive_expect(full, kGroups * kPanelBytes);
        for (int g = 0; g < kGroups; ++g) {
          ptx::load_box_5d(ptx::shared_address(shared.x[ring.slot][g]), &maps.x, full, 0,
                           tile * kRows + g * kBlock, 0, first_panel + slice, 0);
        }
        ring.advance();
      }
    }
    return;
  }

  const int group = warp / 4;
  Ring<kStages> ring{};
#pragma unroll 1
  for (int tile = static_cast<int>(blockIdx.y); tile < row_tiles; tile += static_cast<int>(gridDim.y)) {
    const std::int64_t row = std::int64_t{tile} * kRows + group * kBlock + warp % 4 * 16 + lane / 4;
    float2 cos[2][kHalf / 8], sin[2][kHalf / 8];  // columns 8 * i + 2 * (lane % 4) and the next of two rows
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::int64_t at = min(row + 8 * r, p.n - 1) * kHalf + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kHalf / 8; ++i) {
        cos[r][i] = *reinterpret_cast<const float2*>(p.cos + at + i * 8);
        sin[r][i] = *reinterpret_cast<const float2*>(p.sin + at + i * 8);
      }
    }
    float y[kDim / 2];
#pragma unroll 1
    for (int slice = 0; slice < slices; ++slice) {
      ptx::mbarrier_wait(ptx::shared_address(&shared.x_full[ring.slot]), ring.parity);
      std::uint32_t x[4][4];
      load_fragments(x, shared.x[ring.slot][group], warp % 4, lane);
      ptx::mbarrier_wait(ptx::shared_address(&shared.w_full[slice]), 0);
      const std::uint64_t w =
          ptx::tile_descriptor(ptx::shared_address(weights + slice * kSliceBytes), kPanelBytes);
      ptx::pin(y);
      ptx::wgmma_fence();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        ptx::wgmma<Element, true>(y, x[step], w + step * 16 * 128 / 16, slice + step != 0);
      ptx::wgmma_commit();
      // Not before: the products' start waits for the fragments to have left shared memory.
      if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&shared.x_empty[ring.slot]));
      ring.advance();
      ptx::wgmma_wait<0>();
      ptx::pin(y);
#pragma unroll
      for (int step = 0; step < 4; ++step) ptx::pin(x[step]);
    }
    Element* const out = static_cast<Element*>(p.out) + head * p.out_head_stride;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int first = 0; first < kHalf / 8; first += 4) {
        std::uint32_t low[4], high[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int i = first + j, n = 4 * i + 2 * r;
          const float2 c = cos[r][i], s = sin[r][i];
          const float low0 = y[n], low1 = y[n + 1], high0 = y[kHalf / 2 + n], high1 = y[kHalf / 2 + n + 1];
          low[j] = ptx::pack<Element>(low0 * c.x - high0 * s.x, low1 * c.y - high1 * s.y);
          high[j] = ptx::pack<Element>(high0 * c.x + low0 * s.x, high1 * c.y + low1 * s.y);
        }
        transpose_quad(low, lane);
        transpose_quad(high, lane);
        if (row + 8 * r < p.n) {
          Element* const to = out + (row + 8 * r) * kDim + (first + lane % 4) * 8;
          *reinterpret_cast<uint4*>(to) = make_uint4(low[0], low[1], low[2], low[3]);
          *reinterpret_cast<uint4*>(to + kHalf) = make_uint4(high[0], high[1], high[2], high[3]);
        }
      }
    }
  }
}

template <int kDim, int kGroups>
void launch(const GateProjectMaps& maps, const GateProjectParams& p, int ctas, CUstream_st* stream) {
  static_assert(sizeof(Shared<kGroups>) % 1024 == 0);
  constexpr int kRows = kBlock * kGroups;
  const auto row_tiles = static_cast<int>((p.n + kRows - 1) / kRows);
  const dim3 grid(p.heads, std::clamp(ctas / p.heads, 1, row_tiles));
  launch_early("gate_project", gate_project_kernel<kDim, kGroups>, grid, 128 * kGroups + 32,
               static_cast<int>(sizeof(Shared<kGroups>)) + p.in_dim * kDim * 2, stream, maps, p);
}

}  // namespace

/// At most one CTA a multiprocessor, so that weights are read once; with 128 rows where that gives half of
/// them one, else with 64.
template <int kDim>
void launch_gate_project(const GateProjectMaps& maps, const GateProjectParams& p, CUstream_st* stream) {
  const int processors = multiprocessors("gate_project");
  const bool tall = (p.n + 2 * kBlock - 1) / (2 * kBlock) * p.heads > processors / 2;
  (tall ? launch<kDim, 2> : launch<kDim, 1>)(maps, p, processors, stream);
}

template void launch_gate_project<64>(const GateProjectMaps&, const GateProjectParams&, CUstream_st*);
template void launch_gate_project<128>(const GateProjectMaps&, const GateProjectParams&, CUstream_st*);

}  // namespace seer::cuda
