// The pooled attention of a dense layer on sm_90a: Q K^T alone, whose 64x64 tiles are reduced to their
// largest log-probability.
//
// A CTA has four query tiles of one KV head, taken in turn from the list (row block, head of the group), so
// any group size fills it: a warp that fetches keys and two warpgroups of two tiles each. One key tile in
// shared memory serves all four, which L2 would not keep up with otherwise. A warpgroup holds the fragments
// of its query tiles in registers and has the product of one tile in flight while it reduces the other's.
//
// A warp's share of a tile, the least lse - score * scale (never below 0, so its bits order like the number),
// is one warp reduction; lane j % 32 keeps it. Every 32 key blocks the four warps meet in shared memory, and
// two of them take one exponential a block and write it. The row's sum is theirs, so they also divide it in
// the end.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/pooled_target_launch.h"
#include "cuda/prefill_order.h"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/target_row.cuh"
#include "cuda/tile.cuh"

namespace seer::cuda {

template <int kHeadDim>
struct TargetConfig {
  static constexpr int kTileBytes = kBlock * kHeadDim * 2;
  static constexpr int kStages = kHeadDim == 128 ? 8 : 16;
  static constexpr int kThreads = 128 * 3;
  static constexpr int kFetchRegisters = 56;
  static constexpr int kComputeRegisters = 224;
};

template <int kHeadDim>
struct TargetShared {
  using Config = TargetConfig<kHeadDim>;
  alignas(1024) std::uint8_t q[kTargetTiles][Config::kTileBytes];
  std::uint8_t k[Config::kStages][Config::kTileBytes];
  std::uint64_t q_full;
  std::uint64_t full[Config::kStages];
  std::uint64_t empty[Config::kStages];
  std::uint32_t least[2][kTargetTiles][4][32];  // [half][tile][warp][key block % 32]
};

/// One query tile of an item.
struct TargetTile {
  int row;       // block row of q and target; rows or more: there is none, and row - 1 takes its place
  int head;      // query head
  int diagonal;  // its last key block
};

/// Tile `tile` of CTA `block`: by sections of KV heads whose keys stay in L2, the last rows first.
__device__ __forceinline__ TargetTile target_tile(const TargetArguments& arg, int head_dim, int block,
                                                  int tile, int* kv_head) {
  const int items = static_cast<int>(target_items(arg));
  const int keys = (arg.first_block + arg.rows) * kBlock;
  // Half the bytes that attention reads of a KV head: only keys.
  const PrefillPlace place =
      prefill_place(block, items, 1, arg.num_kv_heads, section_heads(keys, head_dim / 2, arg.num_kv_heads));
  const int index = (items - 1 - place.rank) * kTargetTiles + tile;
  *kv_head = place.kv_head;
  const int row = index / arg.group;
  return {row, place.kv_head * arg.group + index % arg.group, arg.first_block + min(row, arg.rows - 1)};
}

/// The fetching warp: the query tiles, then key blocks 0 to the last diagonal.
template <int kHeadDim>
__device__ __forceinline__ void fetch_target(const TargetMaps& maps, const TargetArguments& arg,
                                             TargetShared<kHeadDim>& shared, int lane) {
  using Config = TargetConfig<kHeadDim>;
  int kv_head = 0;
  int blocks = 0;
  const std::uint32_t q_full = ptx::shared_address(&shared.q_full);
  if (lane == 0) ptx::mbarrier_arrive_expect(q_full, kTargetTiles * Config::kTileBytes);
  for (int t = 0; t < kTargetTiles; ++t) {
    const TargetTile tile = target_tile(arg, kHeadDim, blockIdx.x, t, &kv_head);
    blocks = tile.diagonal + 1;
    if (lane == 0) {
      ptx::load_box_5d(ptx::shared_address(shared.q[t]), &maps.q, q_full, 0,
                       (tile.diagonal - arg.first_block) * kBlock, 0, tile.head, 0);
    }
  }
  Ring<Config::kStages> ring{0, 1};
  for (int first = 0; first < blocks; first += 32) {
    const int page_of_lane = first + lane < blocks ? __ldg(arg.page_table + first + lane) : 0;
    for (int j = 0; j < min(32, blocks - first); ++j) {
      const int page = __shfl_sync(0xffffffffu, page_of_lane, j);
      ptx::mbarrier_wait(ptx::shared_address(&shared.empty[ring.slot]), ring.parity);
      if (lane == 0) {
        const std::uint32_t full = ptx::shared_address(&shared.full[ring.slot]);
        ptx::mbarrier_arrive_expect(full, Config::kTileBytes);
        ptx::load_box_5d(ptx::shared_address(shared.k[ring.slot]), &maps.k, full, 0, 0, 0, kv_head, page);
      }
      ring.advance();
    }
  }
}

/// One computing warpgroup and its two tiles.
template <class T, int kHeadDim>
struct TargetComputer {
  using Config = TargetConfig<kHeadDim>;
  static constexpr int kSteps = kHeadDim / 16;  // k16 steps of Q K^T
  static constexpr int kUnroll = 8;             // divides 32

  const TargetArguments& arg;
  TargetShared<kHeadDim>& shared;
  const int warpgroup;
  const int warp;
  const int lane;
  const float scale_log2;

  Ring<Config::kStages> ring{};  // next slot to use
  std::uint32_t q[2][kSteps][4];
  float s[2][32];
  float lse[2][2];  // log2 units, of rows lane / 4 and lane / 4 + 8; infinite where there is no query
  int diagonal[2];
  std::uint32_t least[2] = {kNoGap, kNoGap};  // of key block (chunk of 32) + lane
  TargetRow out;  // of the tile that this warp writes, if it is one of the first two

  /// Reduces the scores of tile `t` against key block j to the least lse - score * scale.
  template <bool kDiagonal>
  __device__ __forceinline__ void reduce(int t, int j) {
    if (kDiagonal && j >= diagonal[t]) hide_later_keys(s[t], warp, lane, (j - diagonal[t]) * kBlock);
    float top[4] = {s[t][0], s[t][1], s[t][2], s[t][3]};
#pragma unroll
    for (int i = 4; i < 32; ++i) top[i % 4] = fmaxf(top[i % 4], s[t][i]);
    const std::uint32_t of_warp =
        least_gap(fmaxf(top[0], top[1]), fmaxf(top[2], top[3]), lse[t][0], lse[t][1], scale_log2);
    if (lane == j % 32) least[t] = of_warp;
  }

  /// Writes the 32 key blocks around j.
  __device__ __forceinline__ void write(int j) {
    const int half = j / 32 % 2;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      shared.least[half][2 * warpgroup + t][warp][lane] = least[t];
      least[t] = kNoGap;
    }
    // The other half is written only after the next of these, hence after this one's readers.
    ptx::named_barrier_sync(1 + warpgroup, 128);
    if (out.out == nullptr) return;
    const auto& of_warps = shared.least[half][2 * warpgroup + warp];
    out.write(j / 32 * 32 + lane,
              min(min(of_warps[0][lane], of_warps[1][lane]), min(of_warps[2][lane], of_warps[3][lane])));
  }

  /// Reduces key blocks j to j + kCount - 1 of both tiles. While one tile is reduced the product of the other
  /// runs; at the end none does, which is what the compiler accepts of a loop, and the other warpgroup's fill
  /// the gap.
  template <int kCount, bool kDiagonal>
  __device__ __forceinline__ void reduce_blocks(int j) {
    wait_for_keys();
    start_products<T>(s[0], q[0], shared.k[ring.slot]);
    start_products<T>(s[1], q[1], shared.k[ring.slot]);
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      const int slot = ring.slot;
      ring.advance();
      ptx::wgmma_wait<1>();
      ptx::pin(s[0]);
      reduce<kDiagonal>(0, j + u);
      if (u + 1 < kCount) {
        wait_for_keys();
        start_products<T>(s[0], q[0], shared.k[ring.slot]);
        ptx::wgmma_wait<1>();
      } else {
        ptx::wgmma_wait<0>();
      }
      ptx::pin(s[1]);
      if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&shared.empty[slot]));
      reduce<kDiagonal>(1, j + u);
      if (u + 1 < kCount) start_products<T>(s[1], q[1], shared.k[ring.slot]);
    }
    if ((j + kCount) % 32 == 0) write(j);
  }

  __device__ __forceinline__ void wait_for_keys() const {
    ptx::mbarrier_wait(ptx::shared_address(&shared.full[ring.slot]), ring.parity);
  }

  __device__ __forceinline__ void load_tiles() {
    int kv_head = 0;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const TargetTile tile = target_tile(arg, kHeadDim, blockIdx.x, 2 * warpgroup + t, &kv_head);
      diagonal[t] = tile.diagonal;
      const bool exists = tile.row < arg.rows;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const std::int64_t token =
            static_cast<std::int64_t>(tile.row) * kBlock + warp * 16 + r * 8 + lane / 4;
        lse[t][r] = exists && token < arg.num_tokens ? arg.lse[tile.head * arg.num_tokens + token] * kLog2e
                                                     : INFINITY;
      }
      if (exists && warp == t) {
        out.out = arg.target + (static_cast<std::int64_t>(tile.head) * arg.rows + tile.row) * arg.stride;
        out.diagonal = tile.diagonal;
      }
    }
    ptx::mbarrier_wait(ptx::shared_address(&shared.q_full), 0);
#pragma unroll
    for (int t = 0; t < 2; ++t) load_fragments(q[t], shared.q[2 * warpgroup + t], warp, lane);
  }

  __device__ __forceinline__ void run(int blocks) {
    load_tiles();
    int j = 0;
    for (; j + kUnroll <= diagonal[0]; j += kUnroll) reduce_blocks<kUnroll, false>(j);
    for (; j < blocks; ++j) reduce_blocks<1, true>(j);
    if (blocks % 32 != 0) write(blocks - 1);
    out.normalise(arg.stride, lane);
  }
};

template <class T, int kHeadDim>
__global__ void __launch_bounds__(TargetConfig<kHeadDim>::kThreads, 1)
    pooled_target_kernel(const __grid_constant__ TargetMaps maps,
                         const __grid_constant__ TargetArguments arg) {
  using Config = TargetConfig<kHeadDim>;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<TargetShared<kHeadDim>*>(memory);
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(ptx::shared_address(&shared.q_full), 1);
    for (int i = 0; i < Config::kStages; ++i) {
      ptx::mbarrier_init(ptx::shared_address(&shared.full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.empty[i]), 8);
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_tensor_map(&maps.q);
    ptx::prefetch_tensor_map(&maps.k);
  }
  __syncthreads();
  if (warp < 4) {
    ptx::give_registers<Config::kFetchRegisters>();
    if (warp == 0) fetch_target<kHeadDim>(maps, arg, shared, lane);
  } else {
    ptx::take_registers<Config::kComputeRegisters>();
    int kv_head = 0;
    const int blocks = target_tile(arg, kHeadDim, blockIdx.x, kTargetTiles - 1, &kv_head).diagonal + 1;
    TargetComputer<T, kHeadDim> computer{arg, shared, warp / 4 - 1, warp % 4, lane, arg.scale * kLog2e};
    computer.run(blocks);
  }
}

/// Throws Error if `status` is not success.
void check(cudaError_t status, const char* what);

template <class T, int kHeadDim>
void launch_pooled_target(const TargetMaps& maps, const TargetArguments& arguments, CUstream_st* stream) {
  constexpr int kSharedBytes = sizeof(TargetShared<kHeadDim>);
  static_assert(kSharedBytes <= 227 * 1024);
  const auto kernel = pooled_target_kernel<T, kHeadDim>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
        "pooled_target");
  const auto items = static_cast<unsigned>(target_items(arguments) * arguments.num_kv_heads);
  kernel<<<items, TargetConfig<kHeadDim>::kThreads, kSharedBytes, stream>>>(maps, arguments);
  check(cudaGetLastError(), "pooled_target");
}

}  // namespace seer::cuda
