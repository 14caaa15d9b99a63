// The pooled target out of dense attention: the computing warpgroups keep the largest score of every row and
// key block in scratch memory; when an item ends and its log-sum-exp is known, a warp that has nothing else
// to do makes the target's row of it while the warpgroup computes the next item.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/prefill.h"
#include "cuda/prefill_item.h"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/target_row.cuh"
#include "cuda/tile.cuh"

namespace seer::cuda {

/// What a tile's warpgroup hands its pooling warp, in shared memory; two items may be under way.
struct TargetExchange {
  float lse[kSharedTiles][2][kBlock];  // log2 units; infinite for rows that are not the tile's own
  PrefillItem item[kSharedTiles][2];   // as the tile has it
  std::uint64_t full[kSharedTiles][2];
  std::uint64_t empty[kSharedTiles][2];

  __device__ __forceinline__ void init() {
    for (int t = 0; t < kSharedTiles; ++t) {
      for (int slot = 0; slot < 2; ++slot) {
        ptx::mbarrier_init(ptx::shared_address(&full[t][slot]), 4);
        ptx::mbarrier_init(ptx::shared_address(&empty[t][slot]), 1);
      }
    }
  }
};

/// Largest scores [key block][row of the tile] of the item in a slot.
__device__ __forceinline__ float* target_scores(const PrefillArguments& arg, int tile, int slot) {
  const std::int64_t place = (static_cast<std::int64_t>(blockIdx.x) * kSharedTiles + tile) * 2 + slot;
  return arg.target_scratch + place * arg.target_stride * kBlock;
}

/// The computing side: one warp of a tile's warpgroup.
struct TargetSender {
  const PrefillArguments& arg;
  TargetExchange& exchange;
  const int tile;
  const int warp;
  const int lane;
  Ring<2> ring{0, 1};
  float* to = nullptr;  // of the current key block, for the row that this lane writes

  /// Waits for room for an item's scores, the first of which are the diagonal block's.
  __device__ __forceinline__ void begin(const PrefillItem& item) {
    ptx::mbarrier_wait(ptx::shared_address(&exchange.empty[tile][ring.slot]), ring.parity);
    to = target_scores(arg, tile, ring.slot) + static_cast<std::int64_t>(item.last) * kBlock + warp * 16 +
         lane / 4 + lane % 4 * 8;
  }

  /// The largest scores of the lane's two rows, the same in four lanes, in the next key block downwards.
  __device__ __forceinline__ void add(const float (&top)[2]) {
    if (lane % 4 < 2) *to = lane % 4 == 0 ? top[0] : top[1];
    to -= kBlock;
  }

  /// Hands over an item and the log-sum-exp of the lane's two rows.
  __device__ __forceinline__ void end(const PrefillItem& item, const float (&lse)[2]) {
    if (lane % 4 < 2) {
      exchange.lse[tile][ring.slot][warp * 16 + lane / 4 + lane % 4 * 8] = lane % 4 == 0 ? lse[0] : lse[1];
    }
    if (warp == 0 && lane == 0) exchange.item[tile][ring.slot] = item;
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&exchange.full[tile][ring.slot]));
    ring.advance();
  }

  /// No more items.
  __device__ __forceinline__ void stop(const PrefillItem& last) {
    ptx::mbarrier_wait(ptx::shared_address(&exchange.empty[tile][ring.slot]), ring.parity);
    end(last, {INFINITY, INFINITY});
  }
};

/// The pooling warp of a tile.
__device__ __forceinline__ void pool_target(const PrefillArguments& arg, TargetExchange& exchange, int tile,
                                            int lane) {
  const float scale_log2 = arg.scale * ptx::kLog2E;
  for (Ring<2> ring;; ring.advance()) {
    ptx::mbarrier_wait(ptx::shared_address(&exchange.full[tile][ring.slot]), ring.parity);
    const PrefillItem item = exchange.item[tile][ring.slot];
    if (item.head < 0) return;
    const float2 lse = reinterpret_cast<const float2*>(exchange.lse[tile][ring.slot])[lane];
    const auto* scores = reinterpret_cast<const float2*>(target_scores(arg, tile, ring.slot)) + lane;
    const std::int64_t row =
        static_cast<std::int64_t>(item.head) * arg.max_rows + (item.first_token - item.begin) / kBlock;
    float* to = item.begin < item.end ? arg.target + row * arg.target_stride : nullptr;
    TargetRow out{.out = to, .diagonal = item.last};
    for (int first = 0; first <= item.last; first += 32) {
      std::uint32_t gap = kNoGap;
#pragma unroll 8
      for (int j = 0; j < 32; ++j) {
        if (first + j > item.last) continue;
        const float2 top = scores[(first + j) * (kBlock / 2)];
        const std::uint32_t least = least_gap(top.x, top.y, lse.x, lse.y, scale_log2);
        if (lane == j) gap = least;
      }
      out.write(first + lane, gap);
    }
    out.normalise(arg.target_stride, lane);
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&exchange.empty[tile][ring.slot]));
  }
}

}  // namespace seer::cuda
