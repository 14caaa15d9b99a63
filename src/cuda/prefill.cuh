// Causal block-sparse attention for prefill on sm_90a.
//
// One work item is kTiles query tiles of 64 rows that read one KV head. A CTA has one warp that fetches
// (walks the selected blocks, drives the copy engine) and kTiles warpgroups that compute, one tile each. K
// and V pass through two rings of 64-token tiles in shared memory, with a full and an empty mbarrier a slot;
// both rings run on across items. With kTiles = 1 two CTAs share a multiprocessor, each with its own list of
// blocks; with kTiles = 2 one CTA walks the union of two tiles' lists and each warpgroup skips slots that it
// does not need.
//
// A warpgroup holds the fragments of its q tile in registers, so the tensor cores read only K and V from
// shared memory. While it takes the softmax of block j, its products Q K^T of block j + 1 and P V of block j
// - 1 are in flight:
//
//   tensor cores   ... PV(j-1)  QK(j+1) | PV(j)  QK(j+2) | ...
//   ALUs           ... softmax(j)       | softmax(j+1)   | ...
//
// The running maximum of a row moves only when a new one exceeds it by kRescaleThreshold powers of two: the
// exponentials stay below 2^kRescaleThreshold, exact up to rounding, and O is hardly ever rescaled.
//
// Softmax: float32 scores and sums, probabilities rounded to T for the second product, float32 accumulation.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/prefill.h"
#include "cuda/ptx.cuh"

namespace seer::cuda {

inline constexpr int kBlock = 64;                 // rows of a query tile and tokens of a key block
inline constexpr float kRescaleThreshold = 8.0f;  // log2 units
inline constexpr float kLog2e = 1.44269504088896340736f;

/// Sizes of one instance.
template <int kHeadDim, int kTiles>
struct PrefillConfig {
  static constexpr int kTileBytes = kBlock * kHeadDim * 2;
  /// Deep enough to cover the latency of L2: (kStages - 2) tiles of K and of V are on their way while two are
  /// in use.
  static constexpr int kStages = kTiles == 1 ? (kHeadDim == 128 ? 3 : 6) : (kHeadDim == 128 ? 6 : 8);
  static constexpr int kCtasPerSm = kTiles == 1 ? 2 : 1;
  static constexpr int kThreads = 128 * (kTiles + 1);
  static constexpr int kFetchRegisters = 40;
  static constexpr int kComputeRegisters = kTiles == 1 ? 216 : 232;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kSharedBytes = (kTiles + 2 * kStages) * kTileBytes + kBarrierBytes;
};

/// What the fetching warp tells the computing warpgroups about an item.
struct ItemTile {
  int head;
  int blocks;       // selected key blocks; -1: no such tile
  int first_token;  // row 0 of the tile in q and out; tokens before `begin` or from `end` on are not its own
  int begin;
  int end;
  int diagonal;  // the first block of the list is the diagonal one
};

/// Bit of a slot's `needs` that marks the last slot of an item; bit t says that tile t wants the block.
inline constexpr std::uint8_t kLastSlot = 0x80;

template <int kHeadDim, int kTiles>
struct PrefillShared {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  alignas(1024) std::uint8_t q[kTiles][Config::kTileBytes];
  std::uint8_t k[Config::kStages][Config::kTileBytes];
  std::uint8_t v[Config::kStages][Config::kTileBytes];
  std::uint64_t k_full[Config::kStages];
  std::uint64_t k_empty[Config::kStages];
  std::uint64_t v_full[Config::kStages];
  std::uint64_t v_empty[Config::kStages];
  std::uint64_t q_full;
  std::uint64_t q_empty;
  std::uint8_t k_needs[Config::kStages];
  std::uint8_t v_needs[Config::kStages];
  ItemTile item[kTiles];
  int stop;
};

/// Position in a ring of kStages slots.
template <int kStages>
struct Ring {
  int slot = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++slot == kStages) {
      slot = 0;
      parity ^= 1;
    }
  }
};

/// The selected blocks of one tile, 32 words of the row (2048 blocks) at a time, one word a lane.
struct MaskRow {
  const std::uint64_t* words = nullptr;  // nullptr: all blocks
  int last = -1;                         // the diagonal block; -1: no tile

  /// Word 32 * chunk + lane, limited to blocks up to the diagonal.
  __device__ __forceinline__ std::uint64_t load(int chunk, int lane) const {
    const int word = chunk * 32 + lane;
    const int last_word = last >> 6;
    if (last < 0 || word > last_word) return 0;
    std::uint64_t bits = words == nullptr ? ~std::uint64_t{0} : __ldg(words + word);
    if (word == last_word) bits &= ~std::uint64_t{0} >> (63 - (last & 63));
    return bits;
  }
};

/// The fetching warp: items in order, for each the q tiles and the blocks of the union of their lists from
/// the diagonal down.
template <class T, int kHeadDim, int kTiles>
struct PrefillFetcher {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  using Shared = PrefillShared<kHeadDim, kTiles>;
  static constexpr int kStages = Config::kStages;

  const PrefillMaps& maps;
  const PrefillArguments& arg;
  Shared& shared;
  const int lane;
  Ring<kStages> k_ring{0, 1};
  Ring<kStages> v_ring{0, 1};
  std::uint32_t q_parity = 1;

  // Of the current item.
  int kv_head = 0;
  int first_key = 0;                    // contiguous keys: row of token 0
  const std::int32_t* pages = nullptr;  // paged keys

  __device__ __forceinline__ void fetch_block(const CUtensorMap& map, std::uint8_t* tile, std::uint64_t* full,
                                              int block) const {
    const std::uint32_t barrier = ptx::shared_address(full);
    const int page = pages != nullptr ? __ldg(pages + block) : 0;
    const int token = pages != nullptr ? 0 : first_key + block * kBlock;
    ptx::mbarrier_arrive_expect(barrier, Config::kTileBytes);
    ptx::load_box_5d(ptx::shared_address(tile), &map, barrier, 0, token, 0, kv_head, page);
  }

  __device__ __forceinline__ void fetch_k(int block, int needs) {
    ptx::mbarrier_wait(ptx::shared_address(&shared.k_empty[k_ring.slot]), k_ring.parity);
    if (lane == 0) {
      if (kTiles > 1) shared.k_needs[k_ring.slot] = static_cast<std::uint8_t>(needs);
      fetch_block(maps.k, shared.k[k_ring.slot], &shared.k_full[k_ring.slot], block);
    }
    k_ring.advance();
  }

  __device__ __forceinline__ void fetch_v(int block, int needs) {
    ptx::mbarrier_wait(ptx::shared_address(&shared.v_empty[v_ring.slot]), v_ring.parity);
    if (lane == 0) {
      if (kTiles > 1) shared.v_needs[v_ring.slot] = static_cast<std::uint8_t>(needs);
      fetch_block(maps.v, shared.v[v_ring.slot], &shared.v_full[v_ring.slot], block);
    }
    v_ring.advance();
  }

  __device__ __forceinline__ void run() {
    // Tiles of an item are heads of one KV group where its size allows, else rows of one head.
    const int group = arg.num_heads / arg.num_kv_heads;
    const bool by_heads = group % kTiles == 0;
    const int head_sets = by_heads ? group / kTiles : group;
    const int row_sets = by_heads ? arg.max_rows : (arg.max_rows + kTiles - 1) / kTiles;
    const int total = arg.batch * arg.num_kv_heads * head_sets * row_sets;
    int item = blockIdx.x;
    while (item < total) {
      // Sections of one sequence and KV head, so that their keys stay in L2; in one, the longest rows first.
      int next = 0;
      if (lane == 0) next = gridDim.x + atomicAdd(arg.next_item, 1);
      const int section = item / (row_sets * head_sets);
      const int within = item - section * (row_sets * head_sets);
      const int b = section / arg.num_kv_heads;
      kv_head = section - b * arg.num_kv_heads;
      const int row_set = row_sets - 1 - within / head_sets;
      const int head_set = within % head_sets;
      const int q_begin = __ldg(arg.cu_seqlens_q + b);
      const int q_end = __ldg(arg.cu_seqlens_q + b + 1);
      first_key = __ldg(arg.cu_seqlens_k + b);
      const int keys = __ldg(arg.cu_seqlens_k + b + 1) - first_key;
      const int q_offset = keys - (q_end - q_begin);
      const int first_row = q_offset / kBlock;
      const int rows = q_end > q_begin ? (keys + kBlock - 1) / kBlock - first_row : 0;
      pages = arg.page_table != nullptr ? arg.page_table + b * arg.page_table_stride : nullptr;

      MaskRow mask[kTiles];
      std::uint64_t words[kTiles];  // of chunk 0
      ItemTile tile[kTiles];
      int longest = -1;
      int lowest = 0x7fffffff;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = by_heads ? row_set : kTiles * row_set + t;
        const int head = kv_head * group + (by_heads ? kTiles * head_set + t : head_set);
        const bool present = row < rows;
        if (arg.mask != nullptr) {
          mask[t].words =
              arg.mask +
              ((static_cast<std::int64_t>(b) * arg.num_heads + head) * arg.max_rows + row) * arg.mask_words;
        }
        const int last = present ? first_row + row : -1;
        mask[t].last = last;
        longest = max(longest, last);
        int blocks = 0;
        bool diagonal = false;
        words[t] = 0;
        for (int chunk = last >> 11; chunk >= 0; --chunk) {
          words[t] = mask[t].load(chunk, lane);
          blocks += __popcll(words[t]);
          if (words[t] != 0) lowest = min(lowest, (chunk * 32 + lane) * 64 + __ffsll(words[t]) - 1);
          if (chunk * 32 + lane == last >> 6) diagonal = (words[t] >> (last & 63) & 1) != 0;
        }
        tile[t].head = head;
        tile[t].blocks = present ? static_cast<int>(__reduce_add_sync(0xffffffffu, blocks)) : -1;
        tile[t].first_token = q_begin + (first_row + row) * kBlock - q_offset;
        tile[t].begin = q_begin;
        tile[t].end = q_end;
        tile[t].diagonal = __any_sync(0xffffffffu, diagonal);
      }
      lowest = __reduce_min_sync(0xffffffffu, lowest);
      if (longest >= 0) {
        publish(tile);
        walk(mask, words, longest, lowest);
      }
      item = __shfl_sync(0xffffffffu, next, 0);
    }
    ptx::mbarrier_wait(ptx::shared_address(&shared.q_empty), q_parity);
    if (lane == 0) {
      shared.stop = 1;
      ptx::mbarrier_arrive(ptx::shared_address(&shared.q_full));
    }
  }

  __device__ __forceinline__ void publish(const ItemTile (&tile)[kTiles]) {
    ptx::mbarrier_wait(ptx::shared_address(&shared.q_empty), q_parity);
    q_parity ^= 1;
    if (lane == 0) {
      const std::uint32_t barrier = ptx::shared_address(&shared.q_full);
      int bytes = 0;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        shared.item[t] = tile[t];
        if (tile[t].blocks > 0) bytes += Config::kTileBytes;
      }
      ptx::mbarrier_arrive_expect(barrier, bytes);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (tile[t].blocks > 0) {
          ptx::load_box_5d(ptx::shared_address(shared.q[t]), &maps.q, barrier, 0, tile[t].first_token, 0,
                           tile[t].head, 0);
        }
      }
    }
    __syncwarp();
  }

  /// Fetches the union of the lists from the diagonal down, V one block behind K: the order of use.
  __device__ __forceinline__ void walk(const MaskRow (&mask)[kTiles],
                                       const std::uint64_t (&first_words)[kTiles], int longest, int lowest) {
    int previous = -1;
    int previous_needs = 0;
    for (int chunk = longest >> 11; chunk >= 0; --chunk) {
      std::uint64_t words[kTiles];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) words[t] = chunk == 0 ? first_words[t] : mask[t].load(chunk, lane);
      for (int w = min(31, (longest >> 6) - 32 * chunk); w >= 0; --w) {
        std::uint64_t bits[kTiles];
        std::uint64_t all = 0;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          bits[t] = __shfl_sync(0xffffffffu, words[t], w);
          all |= bits[t];
        }
        while (all != 0) {
          const int bit = 63 - __clzll(all);
          all ^= std::uint64_t{1} << bit;
          const int block = (chunk * 32 + w) * 64 + bit;
          int needs = block == lowest ? kLastSlot : 0;
#pragma unroll
          for (int t = 0; t < kTiles; ++t) needs |= static_cast<int>(bits[t] >> bit & 1) << t;
          fetch_k(block, needs);
          if (previous >= 0) fetch_v(previous, previous_needs);
          previous = block;
          previous_needs = needs;
        }
      }
    }
    if (previous >= 0) fetch_v(previous, previous_needs);
  }
};

/// One computing warpgroup.
template <class T, int kHeadDim, int kTiles>
struct PrefillComputer {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  using Shared = PrefillShared<kHeadDim, kTiles>;
  static constexpr int kStages = Config::kStages;
  static constexpr int kSteps = kHeadDim / 16;      // k16 steps of Q K^T
  static constexpr int kPanelBytes = kBlock * 128;  // 64 rows of 64 columns

  const PrefillArguments& arg;
  Shared& shared;
  const int tile;
  const int warp;
  const int lane;
  const float scale_log2;
  const float threshold;

  Ring<kStages> k_ring{};  // next slot to use
  Ring<kStages> v_ring{};
  std::uint32_t q_parity = 0;

  std::uint32_t q[kSteps][4];
  float o[kHeadDim / 2];
  std::uint32_t p[4][4];
  float row_max[2];
  float row_sum[2];

  __device__ __forceinline__ void arrive(std::uint64_t* barrier) const {
    if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(barrier));
  }

  /// Waits for the next slot, gives back those that this tile does not need, and returns the one it needs; -1
  /// if the item ends before.
  __device__ __forceinline__ int next_slot(Ring<kStages>& ring, std::uint64_t* full, std::uint64_t* empty,
                                           const std::uint8_t* needs, bool& ended) const {
    if constexpr (kTiles == 1) {
      ptx::mbarrier_wait(ptx::shared_address(&full[ring.slot]), ring.parity);
      const int slot = ring.slot;
      ring.advance();
      return slot;
    } else {
      while (!ended) {
        ptx::mbarrier_wait(ptx::shared_address(&full[ring.slot]), ring.parity);
        const int slot = ring.slot;
        const int need = *static_cast<const volatile std::uint8_t*>(needs + slot);
        ring.advance();
        ended = (need & kLastSlot) != 0;
        if ((need >> tile & 1) != 0) return slot;
        __syncwarp();
        arrive(&empty[slot]);
      }
      return -1;
    }
  }

  /// Starts S = Q K^T for the next block; returns its K slot.
  __device__ __forceinline__ int start_scores(float (&s)[32], bool& ended) {
    const int slot = next_slot(k_ring, shared.k_full, shared.k_empty, shared.k_needs, ended);
    const std::uint64_t k = ptx::tile_descriptor(ptx::shared_address(shared.k[slot]), 0);
    ptx::pin(s);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      ptx::wgmma<T, false>(s, q[step], k + (step / 4 * kPanelBytes + step % 4 * 32) / 16, step != 0);
    }
    return slot;
  }

  /// Starts O += P V for the next block; returns its V slot.
  __device__ __forceinline__ int start_output(bool& ended) {
    const int slot = next_slot(v_ring, shared.v_full, shared.v_empty, shared.v_needs, ended);
    const std::uint64_t v = ptx::tile_descriptor(ptx::shared_address(shared.v[slot]), kPanelBytes);
    ptx::pin(o);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      ptx::wgmma<T, true>(o, p[step], v + step * 16 * 128 / 16, 1);
    }
    return slot;
  }

  __device__ __forceinline__ void load_q() {
    const int row = warp * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int chunk = step % 4 * 2 + lane / 16;
      ptx::load_matrix_x4(q[step], ptx::shared_address(shared.q[tile]) + step / 4 * kPanelBytes + row * 128 +
                                       ((chunk ^ (row & 7)) * 16));
    }
  }

  /// Hides the keys after the query in the diagonal block.
  __device__ __forceinline__ void mask_diagonal(float (&s)[32]) const {
    const int row = warp * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      if (column > row + i % 4 / 2 * 8) s[i] = -INFINITY;
    }
  }

  /// Scores to probabilities, in place; moves the running maxima where they must move and says so: then O has
  /// to be multiplied by `factor`.
  __device__ __forceinline__ bool softmax(float (&s)[32], float (&factor)[2]) {
    float top[2] = {s[0], s[2]};
#pragma unroll
    for (int i = 0; i < 32; ++i) top[i % 4 / 2] = fmaxf(top[i % 4 / 2], s[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
    }
    const bool move0 = top[0] > row_max[0] + threshold;
    const bool move1 = top[1] > row_max[1] + threshold;
    const bool moved = __any_sync(0xffffffffu, move0 || move1);
    if (moved) {
      factor[0] = move0 ? ptx::exp2_approx((row_max[0] - top[0]) * scale_log2) : 1.0f;
      factor[1] = move1 ? ptx::exp2_approx((row_max[1] - top[1]) * scale_log2) : 1.0f;
      if (move0) row_max[0] = top[0];
      if (move1) row_max[1] = top[1];
      row_sum[0] *= factor[0];
      row_sum[1] *= factor[1];
    }
    const float shift[2] = {row_max[0] * scale_log2, row_max[1] * scale_log2};
    float sum[2][2] = {};
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = i % 4 / 2;
      s[i] = ptx::exp2_approx(fmaf(s[i], scale_log2, -shift[r]));
      sum[r][i % 2] += s[i];
    }
    row_sum[0] += sum[0][0] + sum[0][1];
    row_sum[1] += sum[1][0] + sum[1][1];
    return moved;
  }

  __device__ __forceinline__ void pack_probabilities(const float (&s)[32]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i / 4][i % 4] = ptx::pack<T>(s[2 * i], s[2 * i + 1]);
  }

  /// Block j + 1, whose scores are on their way to `current`, while P V of block j and, with kMore, Q K^T of
  /// block j + 2 (to `next`) run. On entry p holds the probabilities of block j, on return those of j + 1.
  template <bool kMore>
  __device__ __forceinline__ void advance(float (&current)[32], float (&next)[32], int& current_slot,
                                          int& next_slot, bool& k_ended, bool& v_ended) {
    const int v_slot = start_output(v_ended);
    ptx::wgmma_commit();
    if constexpr (kMore) {
      next_slot = start_scores(next, k_ended);
      ptx::wgmma_commit();
      ptx::wgmma_wait<2>();
    } else {
      ptx::wgmma_wait<1>();
    }
    ptx::pin(current);
    arrive(&shared.k_empty[current_slot]);
    float factor[2];
    const bool moved = softmax(current, factor);
    if constexpr (kMore) {
      ptx::wgmma_wait<1>();
    } else {
      ptx::wgmma_wait<0>();
    }
    ptx::pin(o);
#pragma unroll
    for (int i = 0; i < 4; ++i) ptx::pin(p[i]);
    arrive(&shared.v_empty[v_slot]);
    if (moved) {
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) o[i] *= factor[i % 4 / 2];
    }
    pack_probabilities(current);
  }

  /// All blocks of the list.
  __device__ __forceinline__ void attend(int blocks, bool diagonal, bool& k_ended, bool& v_ended) {
    float s0[32], s1[32];
    float factor[2];
    int slot0 = start_scores(s0, k_ended);
    int slot1 = 0;
    ptx::wgmma_commit();
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) o[i] = 0;
    if (blocks == 1) {
      ptx::wgmma_wait<0>();
      ptx::pin(s0);
      arrive(&shared.k_empty[slot0]);
      if (diagonal) mask_diagonal(s0);
      softmax(s0, factor);
      pack_probabilities(s0);
    } else {
      slot1 = start_scores(s1, k_ended);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      ptx::pin(s0);
      arrive(&shared.k_empty[slot0]);
      if (diagonal) mask_diagonal(s0);
      softmax(s0, factor);
      pack_probabilities(s0);
      int left = blocks - 2;  // blocks whose scores are not started
      for (;;) {
        if (left == 0) {
          advance<false>(s1, s0, slot1, slot0, k_ended, v_ended);
          break;
        }
        advance<true>(s1, s0, slot1, slot0, k_ended, v_ended);
        if (left == 1) {
          advance<false>(s0, s1, slot0, slot1, k_ended, v_ended);
          break;
        }
        advance<true>(s0, s1, slot0, slot1, k_ended, v_ended);
        left -= 2;
      }
    }
    const int v_slot = start_output(v_ended);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::pin(o);
    arrive(&shared.v_empty[v_slot]);
  }

  __device__ __forceinline__ void run() {
    for (;;) {
      ptx::mbarrier_wait(ptx::shared_address(&shared.q_full), q_parity);
      q_parity ^= 1;
      if (*static_cast<const volatile int*>(&shared.stop) != 0) return;
      const ItemTile item = shared.item[tile];
      // With several tiles, an item without any block has no slots to pass over.
      bool any = item.blocks > 0;
      if constexpr (kTiles > 1) any = any || shared.item[tile ^ 1].blocks > 0;
      if (item.blocks > 0) load_q();
      __syncwarp();
      arrive(&shared.q_empty);

      bool k_ended = !any;
      bool v_ended = !any;
      row_max[0] = row_max[1] = -INFINITY;
      row_sum[0] = row_sum[1] = 0;
      if (item.blocks > 0) attend(item.blocks, item.diagonal != 0, k_ended, v_ended);
      if constexpr (kTiles > 1) {
        next_slot(k_ring, shared.k_full, shared.k_empty, shared.k_needs, k_ended);
        next_slot(v_ring, shared.v_full, shared.v_empty, shared.v_needs, v_ended);
      }
      if (item.blocks >= 0) store(item);
    }
  }

  /// Normalises and stores the tile's own rows; a quad of lanes exchanges columns so that each lane stores 16
  /// bytes.
  __device__ __forceinline__ void store(const ItemTile& item) {
    const bool empty = item.blocks == 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = row_sum[r];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const float inverse = empty ? 0.0f : 1.0f / sum;
      const int token = item.first_token + warp * 16 + r * 8 + lane / 4;
      const bool own = token >= item.begin && token < item.end;
      if (arg.lse != nullptr && own && lane % 4 == 0) {
        arg.lse[item.head * arg.total_q + token] = empty ? -INFINITY : row_max[r] * arg.scale + logf(sum);
      }
      T* row = static_cast<T*>(arg.out) + token * arg.out_token_stride + item.head * arg.out_head_stride;
#pragma unroll
      for (int panel = 0; panel < kHeadDim / 32; ++panel) {
        std::uint32_t u[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = (panel * 4 + i) * 4 + 2 * r;
          u[i] = empty ? 0u : ptx::pack<T>(o[n] * inverse, o[n + 1] * inverse);
        }
        transpose_quad(u);
        if (own) {
          *reinterpret_cast<uint4*>(row + panel * 32 + lane % 4 * 8) = make_uint4(u[0], u[1], u[2], u[3]);
        }
      }
    }
  }

  /// u[i] of lane t of a quad becomes u[t] of lane i.
  __device__ __forceinline__ void transpose_quad(std::uint32_t (&u)[4]) const {
    const bool odd = lane % 2 != 0;
    const bool upper = lane % 4 >= 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const std::uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? u[i] : u[i + 1], 1);
      (odd ? u[i] : u[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? u[i] : u[i + 2], 2);
      (upper ? u[i] : u[i + 2]) = got;
    }
  }
};

template <class T, int kHeadDim, int kTiles>
__global__ void __launch_bounds__(PrefillConfig<kHeadDim, kTiles>::kThreads,
                                  PrefillConfig<kHeadDim, kTiles>::kCtasPerSm)
    prefill_kernel(const __grid_constant__ PrefillMaps maps, const __grid_constant__ PrefillArguments arg) {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  using Shared = PrefillShared<kHeadDim, kTiles>;
  static_assert(sizeof(Shared) <= Config::kSharedBytes);
  extern __shared__ __align__(1024) std::uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Config::kStages; ++i) {
      ptx::mbarrier_init(ptx::shared_address(&shared.k_full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.v_full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.k_empty[i]), 4 * kTiles);
      ptx::mbarrier_init(ptx::shared_address(&shared.v_empty[i]), 4 * kTiles);
    }
    ptx::mbarrier_init(ptx::shared_address(&shared.q_full), 1);
    ptx::mbarrier_init(ptx::shared_address(&shared.q_empty), 4 * kTiles);
    shared.stop = 0;
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (warp < 4) {
    ptx::give_registers<Config::kFetchRegisters>();
    if (warp == 0) {
      PrefillFetcher<T, kHeadDim, kTiles> fetcher{maps, arg, shared, lane};
      fetcher.run();
    }
  } else {
    ptx::take_registers<Config::kComputeRegisters>();
    PrefillComputer<T, kHeadDim, kTiles> computer{arg,
                                                  shared,
                                                  warp / 4 - 1,
                                                  warp % 4,
                                                  lane,
                                                  arg.scale * kLog2e,
                                                  kRescaleThreshold / (arg.scale * kLog2e)};
    computer.run();
  }
}

/// Throws Error if `status` is not success.
void check(cudaError_t status, const char* what);

template <class T, int kHeadDim, int kTiles>
void launch_prefill(const PrefillMaps& maps, const PrefillArguments& arguments, CUstream_st* stream) {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  const auto kernel = prefill_kernel<T, kHeadDim, kTiles>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Config::kSharedBytes),
        "attention_prefill");
  int device = 0;
  int processors = 0;
  check(cudaGetDevice(&device), "attention_prefill");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "attention_prefill");
  check(cudaMemsetAsync(arguments.next_item, 0, sizeof(std::int32_t), stream), "attention_prefill");
  kernel<<<processors * Config::kCtasPerSm, Config::kThreads, Config::kSharedBytes, stream>>>(maps,
                                                                                              arguments);
  check(cudaGetLastError(), "attention_prefill");
}

}  // namespace seer::cuda
