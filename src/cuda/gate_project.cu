// Projections of pooled queries and keys, with RoPE: small matrix products, bound by reading the weights.
//
// A CTA takes some block rows and one or more heads of a group. The rows stay in shared memory as bf16;
// weights stream past them in slices of 64 rows, which are contiguous over the heads. A warp owns 16 or 32
// rows and the pairs of 8-column tiles that RoPE rotates into each other. The more rows there are, the larger
// the CTA: few rows want many CTAs, many rows want few readings of the weights.
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

/// kPairs: pairs of column tiles of a warp; kRowTiles: its tiles of 16 rows; kRowWarps: warps above each
/// other.
template <int kPairs, int kRowTiles, int kRowWarps>
struct Config {
  static constexpr int kThreads = 32 * kColumnWarps * kRowWarps;
  static constexpr int kRows = 16 * kRowTiles * kRowWarps;  // of a CTA
  /// A few CTAs each wait for memory alone, so they have all of a head's slices on their way.
  static constexpr int kStages = kRowTiles == 1 && kPairs < 4 ? 6 : 3;
  static constexpr int kCtas = kThreads == 256 && kPairs < 4 ? 2 : 1;  // a multiprocessor
};

using Element = __nv_bfloat16;

__device__ __forceinline__ void store_pair(Element* out, float low, float high) {
  *reinterpret_cast<std::uint32_t*>(out) = ptx::pack<Element>(low, high);
}

/// Copies weights [kSlice, out_dim] to shared memory.
template <int kThreads>
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
template <int kRows, int kThreads>
__device__ __forceinline__ void load_rows(Element* tile, const GateProjectParams& p, std::int64_t first,
                                          int x_head) {
  constexpr int kWarps = kThreads / 32, kRowsOfWarp = kRows / kWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int column = lane * 4; column < p.in_dim; column += 128) {
    float4 values[kRowsOfWarp];
#pragma unroll
    for (int i = 0; i < kRowsOfWarp; ++i) {
      const std::int64_t row = first + warp + i * kWarps;
      values[i] = {0, 0, 0, 0};
      if (row < p.n)
        values[i] = *reinterpret_cast<const float4*>(p.x + (row * p.x_heads + x_head) * p.in_dim + column);
    }
#pragma unroll
    for (int i = 0; i < kRowsOfWarp; ++i) {
      *reinterpret_cast<uint2*>(tile + (warp + i * kWarps) * (p.in_dim + kPad) + column) = {
          ptx::pack<Element>(values[i].x, values[i].y), ptx::pack<Element>(values[i].z, values[i].w)};
    }
  }
}

template <int kPairs, int kRowTiles, int kRowWarps>
__global__ void __launch_bounds__(Config<kPairs, kRowTiles, kRowWarps>::kThreads,
                                  Config<kPairs, kRowTiles, kRowWarps>::kCtas)
    gate_project_kernel(GateProjectParams p, int heads_per_cta) {
  using Shape = Config<kPairs, kRowTiles, kRowWarps>;
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
  const int first_head = static_cast<int>(blockIdx.y) * heads_per_cta;
  const Element* weights =
      static_cast<const Element*>(p.w) + static_cast<std::int64_t>(first_head) * p.in_dim * p.out_dim;
  const int slices = p.in_dim / kSlice;
  const int all_slices = heads_per_cta * slices;
  const auto fetch = [&](int slice) {
    if (slice < all_slices) {
      fetch_slice<Shape::kThreads>(stages + slice % kStages * kSlice * w_pitch,
                                   weights + static_cast<std::int64_t>(slice) * kSlice * p.out_dim,
                                   p.out_dim);
    }
    __pipeline_commit();
  };
#pragma unroll 1
  for (int slice = 0; slice < kStages - 1; ++slice) fetch(slice);
  load_rows<kRows, Shape::kThreads>(rows, p, tile_row, first_head / (p.heads / p.x_heads));

  // Addresses of this lane's row in the 16x16 tiles that ldmatrix takes: rows of x, and of the weights'
  // transposed pairs (8 columns of the first half, the 8 paired with them).
  const std::uint32_t x_address =
      ptx::shared_address(rows + (first_row + lane % 16) * x_pitch + lane / 16 * 8);
  const int w_offset = (lane / 8 % 2 * 8 + lane % 8) * w_pitch + (lane / 16) * half + first_pair * 8;

  float sum[kRowTiles][kPairs][2][4] = {};
#pragma unroll 1
  for (int slice = 0; slice < all_slices; ++slice) {
    __pipeline_wait_prior(kStages - 2);
    __syncthreads();
    fetch(slice + kStages - 1);
    const std::uint32_t stage = ptx::shared_address(stages + slice % kStages * kSlice * w_pitch + w_offset);
    const int x_column = slice % slices * kSlice;
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
    if (slice % slices != slices - 1) continue;
    Element* const out = static_cast<Element*>(p.out) + (first_head + slice / slices) * p.out_head_stride;
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
          sum[m][i][0][2 * r] = sum[m][i][0][2 * r + 1] = 0;
          sum[m][i][1][2 * r] = sum[m][i][1][2 * r + 1] = 0;
        }
      }
    }
  }
}

constexpr int kRopeThreads = 256;

/// RoPE alone: a thread takes four pairs of channels.
__global__ void __launch_bounds__(kRopeThreads) gate_rope_kernel(GateProjectParams p) {
  const int half = p.out_dim / 2;
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kRopeThreads + threadIdx.x;
  if (item >= p.n * p.heads * (half / 4)) return;
  const int channel = static_cast<int>(item % (half / 4)) * 4;
  const std::int64_t row = item / (half / 4) / p.heads, head = item / (half / 4) % p.heads;
  const auto load = [](const float* source) { return *reinterpret_cast<const float4*>(source); };
  const float* x = p.x + (row * p.heads + head) * p.out_dim + channel;
  const float4 low = load(x), high = load(x + half);
  const float4 cos = load(p.cos + row * half + channel), sin = load(p.sin + row * half + channel);
  Element* out = static_cast<Element*>(p.out) + head * p.out_head_stride + row * p.out_dim + channel;
  *reinterpret_cast<uint2*>(out) = {
      ptx::pack<Element>(low.x * cos.x - high.x * sin.x, low.y * cos.y - high.y * sin.y),
      ptx::pack<Element>(low.z * cos.z - high.z * sin.z, low.w * cos.w - high.w * sin.w)};
  *reinterpret_cast<uint2*>(out + half) = {
      ptx::pack<Element>(high.x * cos.x + low.x * sin.x, high.y * cos.y + low.y * sin.y),
      ptx::pack<Element>(high.z * cos.z + low.z * sin.z, high.w * cos.w + low.w * sin.w)};
}

template <int kPairs, int kRowTiles, int kRowWarps>
void launch(const GateProjectParams& p, int heads_per_cta, CUstream_st* stream) {
  using Shape = Config<kPairs, kRowTiles, kRowWarps>;
  const auto kernel = gate_project_kernel<kPairs, kRowTiles, kRowWarps>;
  const int bytes = (Shape::kRows * (p.in_dim + kPad) + Shape::kStages * kSlice * (p.out_dim + kPad)) *
                    static_cast<int>(sizeof(Element));
  const dim3 grid(static_cast<unsigned>((p.n + Shape::kRows - 1) / Shape::kRows), p.heads / heads_per_cta);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "gate_project");
  kernel<<<grid, Shape::kThreads, bytes, stream>>>(p, heads_per_cta);
}

/// The largest CTAs that give most multiprocessors one: of 128 rows and all heads of a group, which therefore
/// read the rows once; of 64 rows; of 32.
template <int kPairs>
void launch(const GateProjectParams& p, CUstream_st* stream) {
  constexpr std::int64_t kEnoughCtas = 120;
  constexpr bool kLarge = kPairs < 4;  // their accumulators fit the registers of 512 threads
  if (kLarge && (p.n + 127) / 128 * p.x_heads >= kEnoughCtas && p.in_dim <= 384) {
    launch<kPairs, 2, kLarge ? 4 : 2>(p, p.heads / p.x_heads, stream);
  } else if ((p.n + 63) / 64 * p.heads >= kEnoughCtas) {
    launch<kPairs, 2, 2>(p, 1, stream);
  } else {
    launch<kPairs, 1, 2>(p, 1, stream);
  }
}

}  // namespace

void launch_gate_project(const GateProjectParams& p, CUstream_st* stream) {
  const int pairs = (p.out_dim / 16 + kColumnWarps - 1) / kColumnWarps;
  if (p.w == nullptr) {
    const std::int64_t items = p.n * p.heads * (p.out_dim / 8);
    const auto ctas = static_cast<unsigned>((items + kRopeThreads - 1) / kRopeThreads);
    gate_rope_kernel<<<ctas, kRopeThreads, 0, stream>>>(p);
  } else if (pairs == 1) {
    launch<1>(p, stream);
  } else if (pairs == 2) {
    launch<2>(p, stream);
  } else {
    launch<4>(p, stream);
  }
  check(cudaGetLastError(), "gate_project");
}

}  // namespace seer::cuda
