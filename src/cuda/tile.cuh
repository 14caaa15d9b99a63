// A warpgroup's product of a 64-row tile of queries with a 64-token tile of keys: S [64, 64] in float32,
// whose fragments the 128 threads hold as wgmma leaves them: s[i] of a thread lies in row 16 * warp + lane /
// 4 + 8 * (i / 2 % 2) and column 8 * (i / 4) + 2 * (lane % 4) + i % 2.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/prefill_item.h"
#include "cuda/ptx.cuh"

namespace seer::cuda {

inline constexpr int kPanelBytes = kBlock * 128;  // 64 rows of 64 columns of two bytes

/// The fragments of a tile of kSteps * 16 columns that the copy engine brought, by one warp for its 16 rows.
template <int kSteps>
__device__ __forceinline__ void load_fragments(std::uint32_t (&q)[kSteps][4], const std::uint8_t* tile,
                                               int warp, int lane) {
  const int row = warp * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int chunk = step % 4 * 2 + lane / 16;
    ptx::load_matrix_x4(
        q[step], ptx::shared_address(tile) + step / 4 * kPanelBytes + row * 128 + ((chunk ^ (row & 7)) * 16));
  }
}

/// Starts S = Q K^T, one group of wgmma.
template <class T, int kSteps>
__device__ __forceinline__ void start_products(float (&s)[32], const std::uint32_t (&q)[kSteps][4],
                                               const std::uint8_t* keys) {
  const std::uint64_t k = ptx::tile_descriptor(ptx::shared_address(keys), 0);
  ptx::pin(s);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    ptx::wgmma<T, false>(s, q[step], k + (step / 4 * kPanelBytes + step % 4 * 32) / 16, step != 0);
  }
  ptx::wgmma_commit();
}

/// Hides the keys after each query, where the key tile starts `ahead` after the query tile.
__device__ __forceinline__ void hide_later_keys(float (&s)[32], int warp, int lane, int ahead) {
  const int row = warp * 16 + lane / 4 - ahead;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (column > row + i % 4 / 2 * 8) s[i] = -INFINITY;
  }
}

}  // namespace seer::cuda
