// Projections of pooled queries and keys, with RoPE, for any output size; gate_project_wgmma.cu has the usual
// ones.
//
// A CTA takes 32 or 64 block rows and one head. The rows stay in shared memory; weights stream past them in
// slices of 64 rows. A warp owns 16 or 32 rows and the pairs of 8-column tiles that RoPE rotates into each
// other.
#include <cuda_bf16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/device_array.h"
#include "cuda/gate_launch.h"
#include "cuda/ptx.cuh"

namespace seer::cuda {
namespace {

constexpr int kSlice = 64;       // rows of the weights in a stage
constexpr int kPad = 8;          // elements after a row in shared memory, against bank conflicts
constexpr int kColumnWarps = 4;  // side by side

constexpr int kRowWarps = 2;  // above each other
constexpr int kThreads = 32 * kColumnWarps * kRowWarps;

/// kPairs: pairs of column tiles of a warp; kRowTiles: its tiles of 16 rows.
template <int kPairs, int kRowTiles>
struct Config {
  static constexpr int kRows = 16 * kRowTiles * kRowWarps;  // of a CTA
  /// A few CTAs each wait for memory alone, so they have all of a head's slices on their way.
  static constexpr int kStages = kRowTiles == 1 && kPairs < 4 ? 6 : 3;
  static constexpr int kCtas = kPairs < 4 ? 2 : 1;  // a multiprocessor
};

using Element = __nv_bfloat16;

__device__ __forceinline__ void store_pair(Element* out, float low, float high) {
  *reinterpret_cast<std::uint32_t*>(out) = ptx::pack<Element>(low, high);
}

/// Copies weights [kSlice, out_dim] to shared memory.
__device__ __forceinline__ void fetch_slice(Element* stage, const Element* weights, int out_dim) {
  const int per_row = out_dim / 8;
  int row = static_cast<int>(threadIdx.x) / per_row, part = static_cast<int>(threadIdx.x) % per_row;
  const int rows_on = kThreads / per_row, parts_on = kThreads % per_row;
#pragma unroll 1
  while (row < kSlice) {
    __pipeline_memcpy_async(stage + row * (out_dim + kPad) + part * 8, weights + (row * per_row + part) * 8,
                            16);
    row += rows_on;
    part += parts_on;
    if (part >= per_row) part -= per_row, ++row;
  }
}

/// Rows [first, first + kRows) of one head of x to shared memory; rows after the last one are zero.
template <int kRows>
__device__ __forceinline__ void fetch_rows(Element* tile, const GateProjectParams& p, std::int64_t first,
                                           int x_head) {
  const auto* x = static_cast<const Element*>(p.x);
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int i = threadIdx.x / 32; i < kRows; i += kThreads / 32) {
    const std::int64_t row = first + i;
    const int missing = row < p.n ? 0 : 16;  // bytes to fill with zeros
    const Element* source = x + (min(row, p.n - 1) * p.x_heads + x_head) * p.in_dim;
#pragma unroll 1
    for (int column = lane * 8; column < p.in_dim; column += 256)
      __pipeline_memcpy_async(tile + i * (p.in_dim + kPad) + column, source + column, 16, missing);
  }
}

template <int kPairs, int kRowTiles>
__global__ void __launch_bounds__(kThreads, Config<kPairs, kRowTiles>::kCtas)
    gate_project_kernel(GateProjectParams p) {
  using Shape = Config<kPairs, kRowTiles>;
  constexpr int kRows = Shape::kRows, kStages = Shape::kStages;
  extern __shared__ __align__(16) Element memory[];
  const int half = p.out_dim / 2;
  const int x_pitch = p.in_dim + kPad, w_pitch = p.out_dim + kPad;
  Element* const rows = memory;
  Element* const stages = memory + kRows * x_pitch;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_row = warp / kColumnWarps * 16 * kRowTiles;  // of this warp in the tile
  const int first_pair = warp % kColumnWarps * kPairs;
  const std::int64_t tile_row = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const int head = static_cast<int>(blockIdx.y);
  const Element* weights =
      static_cast<const Element*>(p.w) + static_cast<std::int64_t>(head) * p.in_dim * p.out_dim;
  const int slices = p.in_dim / kSlice;
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      fetch_slice(stages + slice % kStages * kSlice * w_pitch,
                  weights + static_cast<std::int64_t>(slice) * kSlice * p.out_dim, p.out_dim);
    }
    __pipeline_commit();
  };
  fetch_rows<kRows>(rows, p, tile_row, head / (p.heads / p.x_heads));  // with the first slice
#pragma unroll 1
  for (int slice = 0; slice < kStages - 1; ++slice) fetch(slice);

  // Addresses of this lane's row in the 16x16 tiles that ldmatrix takes: rows of x, and of the weights'
  // transposed pairs (8 columns of the first half, the 8 paired with them).
  const std::uint32_t x_address =
      ptx::shared_address(rows + (first_row + lane % 16) * x_pitch + lane / 16 * 8);
  const int w_offset = (lane / 8 % 2 * 8 + lane % 8) * w_pitch + (lane / 16) * half + first_pair * 8;

  float sum[kRowTiles][kPairs][2][4] = {};
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    __pipeline_wait_prior(kStages - 2);
    __syncthreads();
    fetch(slice + kStages - 1);
    const std::uint32_t stage = ptx::shared_address(stages + slice % kStages * kSlice * w_pitch + w_offset);
    const int x_column = slice * kSlice;
#pragma unroll
    for (int k = 0; k < kSlice; k += 16) {
      std::uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        ptx::load_matrix_x4(a[m], x_address + (m * 16 * x_pitch + x_column + k) * 2);
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        if ((first_pair + i) * 8 >= half) continue;
        std::uint32_t b[4];
        ptx::load_matrix_x4_transposed(b, stage + (k * w_pitch + i * 8) * 2);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          ptx::mma<Element>(sum[m][i][0], a[m], b[0], b[1]);
          ptx::mma<Element>(sum[m][i][1], a[m], b[2], b[3]);
        }
      }
    }
  }
  Element* const out = static_cast<Element*>(p.out) + head * p.out_head_stride;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    float2 cos[2][kPairs], sin[2][kPairs];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::int64_t row = min(tile_row + first_row + m * 16 + r * 8 + lane / 4, p.n - 1);
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int column = min((first_pair + i) * 8 + lane % 4 * 2, half - 2);
        cos[r][i] = *reinterpret_cast<const float2*>(p.cos + row * half + column);
        sin[r][i] = *reinterpret_cast<const float2*>(p.sin + row * half + column);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::int64_t row = tile_row + first_row + m * 16 + r * 8 + lane / 4;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int column = (first_pair + i) * 8 + lane % 4 * 2;
        const float low0 = sum[m][i][0][2 * r], low1 = sum[m][i][0][2 * r + 1];
        const float high0 = sum[m][i][1][2 * r], high1 = sum[m][i][1][2 * r + 1];
        if (row < p.n && column < half) {
          store_pair(out + row * p.out_dim + column, low0 * cos[r][i].x - high0 * sin[r][i].x,
                     low1 * cos[r][i].y - high1 * sin[r][i].y);
          store_pair(out + row * p.out_dim + half + column, high0 * cos[r][i].x + low0 * sin[r][i].x,
                     high1 * cos[r][i].y + low1 * sin[r][i].y);
        }
      }
    }
  }
}

template <int kPairs, int kRowTiles>
void launch(const GateProjectParams& p, CUstream_st* stream) {
  using Shape = Config<kPairs, kRowTiles>;
  const auto kernel = gate_project_kernel<kPairs, kRowTiles>;
  const int bytes = (Shape::kRows * (p.in_dim + kPad) + Shape::kStages * kSlice * (p.out_dim + kPad)) *
                    static_cast<int>(sizeof(Element));
  const dim3 grid(static_cast<unsigned>((p.n + Shape::kRows - 1) / Shape::kRows), p.heads);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "gate_project");
  kernel<<<grid, kThreads, bytes, stream>>>(p);
}

/// 64 rows a CTA where that gives most multiprocessors one, else 32.
template <int kPairs>
void launch(const GateProjectParams& p, CUstream_st* stream) {
  constexpr std::int64_t kEnoughCtas = 120;
  const bool tall = (p.n + 63) / 64 * p.heads >= kEnoughCtas;
  (tall ? launch<kPairs, 2> : launch<kPairs, 1>)(p, stream);
}

}  // namespace

void launch_gate_project(const GateProjectParams& p, CUstream_st* stream) {
  const int pairs = (p.out_dim / 16 + kColumnWarps - 1) / kColumnWarps;
  (pairs == 1 ? launch<1> : pairs == 2 ? launch<2> : launch<4>)(p, stream);
  check(cudaGetLastError(), "gate_project");
}

}  // namespace seer::cuda
