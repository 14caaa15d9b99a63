// What the kernels that score and select share: a CTA multiplies 64 block rows of a head a warpgroup with all
// of their keys, as often as the rule asks for, and keeps no scores. One more warp drives the copy engine,
// and keys pass through a ring.
#pragma once

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

/// Tiles of keys in shared memory, and their barriers.
template <int kDim, int kStages>
struct KeyRing {
  static constexpr int kTileBytes = kBlock * kDim * 2;
  alignas(1024) std::uint8_t tile[kStages][kTileBytes];
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];
  std::uint64_t q_full;  // of the queries, which come once
};

/// CTAs of kGroups row tiles.
template <int kGroups>
std::int64_t ctas_for(const GateSelectParams& p) {
  return (p.rows + kBlock * kGroups - 1) / (kBlock * kGroups) * p.heads;
}

/// Block rows of a CTA, the longest of all heads first.
template <int kGroups>
struct CtaRows {
  static constexpr int kRows = kBlock * kGroups;
  int head;
  int tile_row;  // in the mask
  int rows;
  int first_row;  // block row of tile_row
  int key_tiles;

  __device__ __forceinline__ explicit CtaRows(const GateSelectParams& p)
      : head(static_cast<int>(blockIdx.x % static_cast<unsigned>(p.heads))),
        tile_row(static_cast<int>((p.rows - 1) / kRows - blockIdx.x / static_cast<unsigned>(p.heads)) *
                 kRows),
        rows(min(kRows, static_cast<int>(p.rows) - tile_row)),
        first_row(static_cast<int>(p.first_row) + tile_row),
        key_tiles((first_row + rows - 1) / kBlock + 1) {}
};

/// One thread, before all read the barriers.
template <int kDim, int kStages>
__device__ __forceinline__ void init_barriers(KeyRing<kDim, kStages>& keys, int warps) {
  ptx::mbarrier_init(ptx::shared_address(&keys.q_full), 1);
  for (int i = 0; i < kStages; ++i) {
    ptx::mbarrier_init(ptx::shared_address(&keys.full[i]), 1);
    ptx::mbarrier_init(ptx::shared_address(&keys.empty[i]), warps);
  }
  ptx::fence_mbarrier_init();
}

/// The lane that drives the copy engine.
template <int kDim, int kStages>
struct KeyFetcher {
  static constexpr int kTileBytes = KeyRing<kDim, kStages>::kTileBytes;
  const GateSelectMaps& maps;
  KeyRing<kDim, kStages>& keys;
  const int k_head;
  const int key_tiles;
  Ring<kStages> ring{.parity = 1};

  template <int kGroups>
  __device__ __forceinline__ void fetch_queries(std::uint8_t (&q)[kGroups][kTileBytes],
                                                const CtaRows<kGroups>& cta) const {
    const std::uint32_t full = ptx::shared_address(&keys.q_full);
    ptx::mbarrier_arrive_expect(full, kGroups * kTileBytes);
    for (int g = 0; g < kGroups; ++g)
      ptx::load_box_5d(ptx::shared_address(q[g]), &maps.q, full, 0, cta.tile_row + g * kBlock, 0, cta.head,
                       0);
  }

  /// For one pass over the rows.
  __device__ __forceinline__ void fetch_keys() {
#pragma unroll 1
    for (int t = 0; t < key_tiles; ++t) {
      const std::uint32_t full = ptx::shared_address(&keys.full[ring.slot]);
      ptx::mbarrier_wait(ptx::shared_address(&keys.empty[ring.slot]), ring.parity);
      ptx::mbarrier_arrive_expect(full, kTileBytes);
      ptx::load_box_5d(ptx::shared_address(keys.tile[ring.slot]), &maps.k, full, 0, t * kBlock, 0, k_head, 0);
      ring.advance();
    }
  }
};

/// A warpgroup's 64 rows. A thread has part of two of them, `row(0)` and `row(1)`, as wgmma leaves it.
template <int kDim, int kStages>
struct RowTile {
  KeyRing<kDim, kStages>& keys;
  const int warp;  // of the warpgroup
  const int lane;
  const int first;      // block row of the first row
  const int own_rows;   // 64 but at the end of the mask
  const int key_tiles;  // that pass through the ring
  const int own_tiles;  // up to the last row's diagonal
  Ring<kStages> ring{};
  std::uint32_t q[kDim / 16][4];

  /// Waits for the queries.
  template <int kGroups>
  __device__ __forceinline__
  RowTile(KeyRing<kDim, kStages>& keys,
          const std::uint8_t (&queries)[kGroups][KeyRing<kDim, kStages>::kTileBytes],
          const CtaRows<kGroups>& cta, int cta_warp, int lane)
      : keys(keys),
        warp(cta_warp % 4),
        lane(lane),
        first(cta.first_row + cta_warp / 4 * kBlock),
        own_rows(max(0, min(kBlock, cta.rows - cta_warp / 4 * kBlock))),
        key_tiles(cta.key_tiles),
        own_tiles(own_rows == 0 ? 0 : (first + own_rows - 1) / kBlock + 1) {
    ptx::mbarrier_wait(ptx::shared_address(&keys.q_full), 0);
    load_fragments(q, queries[cta_warp / 4], warp, lane);
  }

  __device__ __forceinline__ int row(int r) const { return first + warp * 16 + lane / 4 + 8 * r; }
  __device__ __forceinline__ bool is_own(int block_row) const { return block_row - first < own_rows; }

  /// Whether tile t of keys goes beyond a row's diagonal.
  __device__ __forceinline__ bool crosses(int t) const { return t * kBlock + kBlock - 1 > first; }

  /// -inf for what lies after a row's diagonal.
  __device__ __forceinline__ void hide(int t, float (&s)[32]) const {
    if (crosses(t)) hide_later_keys(s, warp, lane, t * kBlock - first);
  }

  /// Calls use(t, s) with the products of each tile of keys. With kPairs two tiles' products start together
  /// and the second one's go on while the first one's are used, at the price of 32 registers and, where the
  /// tiles are odd in number, of products that nobody uses (a start on condition would make the compiler
  /// wait).
  template <bool kPairs, class Use>
  __device__ __forceinline__ void for_tiles(const Use& use) {
    float s[32];
    if constexpr (kPairs) {
      float second[32];
#pragma unroll 1
      for (int t = 0; t < own_tiles; t += 2) {
        start(t, s);
        start(t + 1, second);
        finish<1>(t, s);
        use(t, s);
        finish<0>(t + 1, second);
        if (t + 1 < own_tiles) use(t + 1, second);
      }
    } else {
#pragma unroll 1
      for (int t = 0; t < own_tiles; ++t) {
        start(t, s);
        finish<0>(t, s);
        use(t, s);
      }
    }
#pragma unroll 1
    for (int t = own_tiles; t < key_tiles; ++t) {
      wait();
      ring.advance();
      give_back();
    }
  }

 private:
  __device__ __forceinline__ void wait() const {
    ptx::mbarrier_wait(ptx::shared_address(&keys.full[ring.slot]), ring.parity);
    __syncwarp();
  }
  /// Starts the products of tile t, or of whatever lies there where there is no such tile.
  __device__ __forceinline__ void start(int t, float (&s)[32]) {
    if (t < own_tiles) wait();
    start_products<__nv_bfloat16>(s, q, keys.tile[ring.slot]);
    if (t < own_tiles) ring.advance();
  }
  /// Waits for the products of tile t, while kPending later ones may go on.
  template <int kPending>
  __device__ __forceinline__ void finish(int t, float (&s)[32]) {
    ptx::wgmma_wait<kPending>();
    ptx::pin(s);
    if (t < own_tiles) give_back();
  }
  /// The tiles are given back in their order.
  __device__ __forceinline__ void give_back() {
    if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&keys.empty[used]));
    used = used + 1 == kStages ? 0 : used + 1;
  }

  int used = 0;  // the slot to give back next
};

/// The mask of a warpgroup's rows. Lanes 0 and 1 of a quad write the words of its two rows and count.
struct MaskWriter {
  const GateSelectParams& p;  // not in registers
  int head;
  int lane;
  int own_row;  // whose words this lane sees
  bool writes;
  int count = 0;

  template <class Tile>
  __device__ __forceinline__ MaskWriter(const GateSelectParams& p, int head, const Tile& tile)
      : p(p),
        head(head),
        lane(tile.lane),
        own_row(tile.row(tile.lane % 2)),
        writes(tile.lane % 4 < 2 && tile.is_own(own_row)) {}

  __device__ __forceinline__ std::uint64_t* words(int block_row) const {
    return p.mask + (head * p.rows + block_row - p.first_row) * p.mask_words;
  }

  /// The own row's word t out of every lane's bits [row][half], where bit 8 * j + i stands for column 8 * j +
  /// 2 * (lane % 4) + i. Nothing after the diagonal.
  __device__ __forceinline__ std::uint64_t join(int t, const std::uint32_t (&bits)[2][2]) const {
    const bool odd = lane % 2 != 0;
    const int shift = 2 * (lane % 4);
    std::uint32_t word[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t got = __shfl_xor_sync(kAllLanes, odd ? bits[0][half] : bits[1][half], 1);
      word[half] = (odd ? bits[1][half] : bits[0][half]) << shift | got << (shift ^ 2);
      word[half] |= __shfl_xor_sync(kAllLanes, word[half], 2);
      word[half] &= range_bits(2 * t + half, 0, own_row + 1);
    }
    return static_cast<std::uint64_t>(word[1]) << 32 | word[0];
  }

  __device__ __forceinline__ void write(int t, std::uint64_t word) {
    if (!writes) return;
    words(own_row)[t] = word;
    count += __popcll(word);
  }

  /// A row without blocks gets its diagonal.
  __device__ __forceinline__ void fill_empty() {
    if (!writes || count > 0) return;
    words(own_row)[own_row / kBlock] = std::uint64_t{1} << (own_row % kBlock);
    count = 1;
  }

  /// The words after the tiles, and the warp's part of the number of blocks.
  template <class Tile>
  __device__ __forceinline__ void finish(const Tile& tile) const {
#pragma unroll 1
    for (int r = tile.warp * 16; r < min(tile.warp * 16 + 16, tile.own_rows); ++r) {
#pragma unroll 1
      for (std::int64_t w = tile.own_tiles + lane; w < p.mask_words; w += 32) words(tile.first + r)[w] = 0;
    }
    if (p.selected_blocks == nullptr) return;
    const int sum = __reduce_add_sync(kAllLanes, count);
    if (lane == 0 && sum > 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(p.selected_blocks),
                static_cast<unsigned long long>(sum));
  }
};

/// A row's largest product and the sum of exponentials of the others' differences to it, in powers of two; of
/// the parts that a thread has of its two rows, until join().
struct RowStats {
  float top[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};

  /// scale: from products to powers of two.
  __device__ __forceinline__ void add(const float (&s)[32], float scale) {
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
  }

  /// Over the quad that shares the rows.
  __device__ __forceinline__ void join(float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float own = top[r];
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2));
      sum[r] *= ptx::exp2_approx((own - top[r]) * scale);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }
};

/// From products to powers of two.
template <int kDim>
__device__ __forceinline__ float product_scale() {
  return ptx::kLog2E / sqrtf(static_cast<float>(kDim));
}

}  // namespace seer::cuda
