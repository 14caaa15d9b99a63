// The blocks whose share of a row's softmax exceeds a threshold, without keeping a score.
//
// A CTA takes 64 block rows of a head a warpgroup and multiplies them with the keys twice. The first time a
// thread keeps the maximum and the sum of the exponentials of its part of a row; then a block's share exceeds
// the threshold exactly where its score exceeds one number, so the second time only the comparisons are left,
// whose bits are the mask. Two products cost less than a pass of all scores through shared memory, and leave
// room for tiles of keys four times as tall. One more warp drives the copy engine; keys pass through a ring.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/gate_launch.h"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/select.cuh"
#include "cuda/tile.cuh"

namespace seer::cuda {
namespace {

constexpr int kStages = 4;
constexpr int kCtas = 2;  // a multiprocessor

template <int kDim, int kGroups>
struct Shared {
  static constexpr int kTileBytes = kBlock * kDim * 2;
  alignas(1024) std::uint8_t q[kGroups][kTileBytes];
  std::uint8_t k[kStages][kTileBytes];
  std::uint64_t q_full;
  std::uint64_t k_full[kStages];
  std::uint64_t k_empty[kStages];
};

/// A warpgroup's view of its 64 rows.
template <int kDim, int kGroups>
struct RowTile {
  Shared<kDim, kGroups>& shared;
  const int warp;  // of the warpgroup
  const int lane;
  const int first;      // block row of the tile's first row
  const int own_tiles;  // tiles of keys up to the last row's diagonal
  const int all_tiles;  // tiles that pass through the ring
  Ring<kStages> ring{};
  std::uint32_t q[kDim / 16][4];

  /// Calls use(t, s) with the products of each of the row's tiles of keys.
  template <class Use>
  __device__ __forceinline__ void for_tiles(const Use& use) {
    float s[32];
#pragma unroll 1
    for (int t = 0; t < all_tiles; ++t) {
      ptx::mbarrier_wait(ptx::shared_address(&shared.k_full[ring.slot]), ring.parity);
      const bool own = t < own_tiles;
      if (own) {
        start_products<__nv_bfloat16>(s, q, shared.k[ring.slot]);
        ptx::wgmma_wait<0>();
        ptx::pin(s);
      }
      __syncwarp();
      if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&shared.k_empty[ring.slot]));
      ring.advance();
      if (own) use(t, s);
    }
  }
};

template <int kDim, int kGroups>
__global__ void __launch_bounds__(128 * kGroups + 32, kCtas)
    gate_threshold_kernel(const __grid_constant__ GateSelectMaps maps, GateSelectParams p, float threshold,
                          std::int64_t dense_from) {
  using Memory = Shared<kDim, kGroups>;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  Memory& shared = *reinterpret_cast<Memory*>(memory);
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  // The longest rows of all heads first.
  constexpr int kRows = kBlock * kGroups;
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(p.heads));
  const int tile_row =
      static_cast<int>((p.rows - 1) / kRows - blockIdx.x / static_cast<unsigned>(p.heads)) * kRows;
  const int rows = min(kRows, static_cast<int>(p.rows) - tile_row);
  const int first_row = static_cast<int>(p.first_row) + tile_row;
  const int tiles = (first_row + rows - 1) / kBlock + 1;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(ptx::shared_address(&shared.q_full), 1);
    for (int i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(ptx::shared_address(&shared.k_full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.k_empty[i]), 4 * kGroups);
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_tensor_map(&maps.q);
    ptx::prefetch_tensor_map(&maps.k);
  }
  __syncthreads();
  ptx::wait_for_previous_kernel();

  if (warp == 4 * kGroups) {
    if (lane != 0) return;
    const int k_head = head / (p.heads / p.k_heads);
    const std::uint32_t q_full = ptx::shared_address(&shared.q_full);
    ptx::mbarrier_arrive_expect(q_full, kGroups * Memory::kTileBytes);
    for (int g = 0; g < kGroups; ++g)
      ptx::load_box_5d(ptx::shared_address(shared.q[g]), &maps.q, q_full, 0, tile_row + g * kBlock, 0, head,
                       0);
    Ring<kStages> ring{.parity = 1};
#pragma unroll 1
    for (int i = 0; i < 2 * tiles; ++i) {
      const std::uint32_t full = ptx::shared_address(&shared.k_full[ring.slot]);
      ptx::mbarrier_wait(ptx::shared_address(&shared.k_empty[ring.slot]), ring.parity);
      ptx::mbarrier_arrive_expect(full, Memory::kTileBytes);
      ptx::load_box_5d(ptx::shared_address(shared.k[ring.slot]), &maps.k, full, 0,
                       (i < tiles ? i : i - tiles) * kBlock, 0, k_head, 0);
      ring.advance();
    }
    return;
  }

  const int group = warp / 4;
  const int first = first_row + group * kBlock;
  const int own_rows = max(0, min(kBlock, rows - group * kBlock));
  RowTile<kDim, kGroups> tile{.shared = shared,
                              .warp = warp % 4,
                              .lane = lane,
                              .first = first,
                              .own_tiles = own_rows == 0 ? 0 : (first + own_rows - 1) / kBlock + 1,
                              .all_tiles = tiles};
  ptx::mbarrier_wait(ptx::shared_address(&shared.q_full), 0);
  load_fragments(tile.q, shared.q[group], tile.warp, lane);

  // Rows `row` and `row` + 8 are this thread's. Exponents are powers of two.
  const int row = first + tile.warp * 16 + lane / 4;
  const float scale = kLog2e / sqrtf(static_cast<float>(kDim));
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  tile.for_tiles([&](int t, float(&s)[32]) {
    if (t * kBlock + kBlock - 1 > first) hide_later_keys(s, tile.warp, lane, t * kBlock - first);
    float next[2] = {top[0], top[1]};
#pragma unroll
    for (int i = 0; i < 32; ++i) next[i % 4 / 2] = fmaxf(next[i % 4 / 2], s[i]);
    float shift[2], part[2][2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      shift[r] = next[r] == -INFINITY ? 0.0f : next[r] * scale;
      sum[r] *= ptx::exp2_approx(fmaf(top[r], scale, -shift[r]));
      top[r] = next[r];
    }
#pragma unroll
    for (int i = 0; i < 32; ++i)
      part[i % 4 / 2][i % 2] += ptx::exp2_approx(fmaf(s[i], scale, -shift[i % 4 / 2]));
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] += part[r][0] + part[r][1];
  });

  float cut[2];  // of the products
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
    sum[r] *= ptx::exp2_approx((top[r] - most) * scale);
    sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
    sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    cut[r] = row + 8 * r >= dense_from ? -INFINITY : most + log2f(threshold * sum[r]) / scale;
  }

  // Lanes 0 and 1 of a quad write the words of its two rows.
  const bool odd = lane % 2 != 0;
  const int own_row = row + 8 * (lane % 2);
  const bool writes = lane % 4 < 2 && own_row - first < own_rows;
  std::uint64_t* const words =
      p.mask + (head * p.rows + own_row - p.first_row) * p.mask_words;  // not read where it is no row
  int count = 0;
  tile.for_tiles([&](int t, float(&s)[32]) {
    std::uint32_t bits[2][2] = {};  // [row][half of the word], shifted right by 2 * (lane % 4)
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if (s[i] > cut[i % 4 / 2]) bits[i % 4 / 2][i / 16] |= 1u << (i / 4 % 4 * 8 + i % 2);
    }
    std::uint32_t word[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t got = __shfl_xor_sync(kAllLanes, odd ? bits[0][half] : bits[1][half], 1);
      const std::uint32_t own = odd ? bits[1][half] : bits[0][half];
      const int shift = 2 * (lane % 4);
      word[half] = own << shift | got << (shift ^ 2);
      word[half] |= __shfl_xor_sync(kAllLanes, word[half], 2);
      word[half] &= range_bits(2 * t + half, 0, own_row + 1);
    }
    if (writes) words[t] = static_cast<std::uint64_t>(word[1]) << 32 | word[0];
    count += __popc(word[0]) + __popc(word[1]);
  });
  if (!writes) count = 0;
  if (writes && count == 0) {
    words[own_row / kBlock] = std::uint64_t{1} << (own_row % kBlock);
    count = 1;
  }
#pragma unroll 1
  for (int r = tile.warp * 16; r < min(tile.warp * 16 + 16, own_rows); ++r) {
    std::uint64_t* const rest = p.mask + (head * p.rows + first + r - p.first_row) * p.mask_words;
#pragma unroll 1
    for (std::int64_t w = tile.own_tiles + lane; w < p.mask_words; w += 32) rest[w] = 0;
  }
  if (p.selected_blocks == nullptr) return;
  count = __reduce_add_sync(kAllLanes, count);
  if (lane == 0 && count > 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(p.selected_blocks),
              static_cast<unsigned long long>(count));
}

template <int kDim, int kGroups>
void launch(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  constexpr int kRows = kBlock * kGroups;
  const RowRule rule = row_rule(p.select);
  const auto ctas = static_cast<unsigned>((p.rows + kRows - 1) / kRows * p.heads);
  launch_early("gate_select", gate_threshold_kernel<kDim, kGroups>, dim3(ctas), 128 * kGroups + 32,
               static_cast<int>(sizeof(Shared<kDim, kGroups>)), stream, maps, p,
               static_cast<float>(rule.value), rule.dense_from);
}

}  // namespace

/// Two row tiles a CTA read the keys half as often, where there are CTAs enough.
template <int kDim>
void launch_gate_threshold(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  constexpr std::int64_t kEnoughCtas = 256;
  const auto run =
      (p.rows + 2 * kBlock - 1) / (2 * kBlock) * p.heads >= kEnoughCtas ? launch<kDim, 2> : launch<kDim, 1>;
  run(maps, p, stream);
}

template void launch_gate_threshold<64>(const GateSelectMaps&, const GateSelectParams&, CUstream_st*);
template void launch_gate_threshold<128>(const GateSelectMaps&, const GateSelectParams&, CUstream_st*);

}  // namespace seer::cuda
