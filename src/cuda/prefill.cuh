// Causal block-sparse attention for prefill on sm_90a.
//
// One work item is a block of 64 query rows of kTiles heads that read one KV head by one list of key blocks
// (of an odd group, some have a head in the row before: tile_of()).
// A CTA has one warp that fetches (walks the list, drives the copy engine) and kTiles warpgroups that
// compute, one head each. K and V pass through two rings of 64-token tiles in shared memory, with a full and
// an empty mbarrier a slot; the rings run on across items. With kTiles = 1 two CTAs share a multiprocessor;
// with kTiles = 2 one CTA holds it and L2 is read half as often, which needs two heads with the same list
// (dense attention, or an even group with a mask by KV head).
//
// A second warp plans ahead: it takes the next item, reads its mask row and counts its blocks.
//
// A warpgroup holds the fragments of its q tile in registers, so the tensor cores read only K and V from
// shared memory. It starts Q K^T of block j + 1 and P V of block j together and takes the softmax of j + 1
// while P V runs; with kTiles = 2 the warpgroups take turns at starting, so that one's softmax meets the
// other's products.
//
// The running maximum of a row moves only when a new one exceeds it by kRescaleThreshold powers of two: the
// exponentials stay below 2^kRescaleThreshold, exact up to rounding, and O is hardly ever rescaled.
//
// Softmax: float32 scores and sums, probabilities rounded to T for the second product, float32 accumulation.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/check.h"
#include "cuda/lanes.cuh"
#include "cuda/prefill.h"
#include "cuda/prefill_item.h"
#include "cuda/prefill_order.h"
#include "cuda/prefill_target.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/tile.cuh"
#include "cuda/workspace.h"

namespace seer::cuda {

inline constexpr float kRescaleThreshold = 8.0f;  // log2 units

/// Sizes of one instance.
template <int kHeadDim, int kTiles>
struct PrefillConfig {
  static constexpr int kTileBytes = kBlock * kHeadDim * 2;
  /// As many as fit. One tile of K and one of V are in use, the others on their way: at least 64 KB a
  /// multiprocessor, which covers the latency of L2.
  static constexpr int kStages = kTiles == 1 ? (kHeadDim == 128 ? 3 : 6) : (kHeadDim == 128 ? 6 : 8);
  static constexpr int kCtasPerSm = kTiles == 1 ? 2 : 1;
  static constexpr int kThreads = 128 * (kTiles + 1);
  static constexpr int kFetchRegisters = 56;
  static constexpr int kComputeRegisters = kTiles == 1 ? 200 : 224;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kSharedBytes = (kTiles + 2 * kStages) * kTileBytes + kBarrierBytes;
};

/// An item and the first 2048 blocks of its mask row.
struct PrefillPlan {
  PrefillItem item;
  std::uint64_t words[32];
};

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
  std::uint64_t plan_full[2];
  std::uint64_t plan_empty[2];
  PrefillPlan plan[2];
  PrefillItem item;  // whose q tiles are in q
};

/// Word 32 * chunk + lane of an item's mask row, limited to blocks up to the diagonal.
__device__ __forceinline__ std::uint64_t load_mask_words(const PrefillArguments& arg, const PrefillItem& item,
                                                         int row, int chunk, int lane) {
  const int word = chunk * 32 + lane;
  const int last_word = item.last >> 6;
  if (word > last_word) return 0;
  std::uint64_t bits = ~std::uint64_t{0};
  if (arg.mask != nullptr) {
    const int mask_head = item.head / (arg.num_heads / arg.mask_heads);
    const std::int64_t mask_row =
        (static_cast<std::int64_t>(item.sequence) * arg.mask_heads + mask_head) * arg.max_rows + row;
    bits = __ldg(arg.mask + mask_row * arg.mask_words + word);
  }
  if (word == last_word) bits &= ~std::uint64_t{0} >> (63 - (item.last & 63));
  return bits;
}

/// The result of tiles without blocks, by one warp. Two are of one row: only a mask leaves none, and tiles
/// share one only in even groups.
template <int kHeadDim, int kTiles>
__device__ __forceinline__ void store_empty(const PrefillArguments& arg, const PrefillItem& item, int lane) {
  for (int t = 0; t < kTiles; ++t) {
    const int first = max(item.first_token, item.begin);
    const int last = min(item.first_token + kBlock, item.end);
    for (int token = first; token < last; ++token) {
      if (arg.lse != nullptr && lane == 0) arg.lse[(item.head + t) * arg.total_q + token] = -INFINITY;
      auto* row = static_cast<std::uint16_t*>(arg.out) + token * arg.out_token_stride +
                  (item.head + t) * arg.out_head_stride;
      if (lane < kHeadDim / 8) reinterpret_cast<uint4*>(row)[lane] = make_uint4(0, 0, 0, 0);
    }
  }
}

/// The planning warp: takes items from the common counter, a sequence after the other, in the order of
/// prefill_place().
template <int kHeadDim, int kTiles>
__device__ __forceinline__ void plan_items(const PrefillArguments& arg,
                                           PrefillShared<kHeadDim, kTiles>& shared, int lane) {
  const int group = arg.num_heads / arg.num_kv_heads;
  const int set_rows = kTiles == 2 ? pair_rows(group) : 1;
  const int row_sets = (arg.max_rows + set_rows - 1) / set_rows;
  const int head_sets = group * set_rows / kTiles;
  const int sequence_items = arg.num_kv_heads * row_sets * head_sets;
  const int total = arg.batch * sequence_items;
  Ring<2> ring{0, 1};
  int next = blockIdx.x;
  for (bool more = true; more;) {
    const int number = next;
    int taken = 0;
    if (lane == 0) taken = static_cast<int>(gridDim.x) + atomicAdd(&arg.counters[0], 1);
    PrefillItem item{};
    item.head = -1;
    std::uint64_t words = 0;
    more = number < total;
    if (more) {
      item.sequence = number / sequence_items;
      item.begin = __ldg(arg.cu_seqlens_q + item.sequence);
      item.end = __ldg(arg.cu_seqlens_q + item.sequence + 1);
      item.first_key = __ldg(arg.cu_seqlens_k + item.sequence);
      const int keys = __ldg(arg.cu_seqlens_k + item.sequence + 1) - item.first_key;
      PrefillPlace place =
          prefill_place(number - item.sequence * sequence_items, row_sets, head_sets, arg.num_kv_heads,
                        kTiles == 1 ? 1 : section_heads(keys, kHeadDim, arg.num_kv_heads));
      if constexpr (kTiles == 2) place = first_of_pair(place, group);
      const int row = query_rows(item.end - item.begin, keys) - 1 - place.rank;
      item.head = place.kv_head * group + place.head_set;
      const int q_offset = keys - (item.end - item.begin);
      item.last = q_offset / kBlock + row;
      item.first_token = item.begin + item.last * kBlock - q_offset;
      if (row >= 0) {
        int blocks = 0;
        bool diagonal = false;
        for (int chunk = item.last >> 11; chunk >= 0; --chunk) {
          words = load_mask_words(arg, item, row, chunk, lane);
          blocks += __popcll(words);
          if (chunk * 32 + lane == item.last >> 6) diagonal = (words >> (item.last & 63) & 1) != 0;
        }
        item.blocks = static_cast<int>(__reduce_add_sync(0xffffffffu, blocks));
        item.diagonal = __any_sync(0xffffffffu, diagonal);
      } else {
        item.end = item.begin;  // the sequence has no such row
      }
    }
    next = __shfl_sync(0xffffffffu, taken, 0);
    if (more && item.blocks == 0) {
      store_empty<kHeadDim, kTiles>(arg, item, lane);
      continue;
    }
    ptx::mbarrier_wait(ptx::shared_address(&shared.plan_empty[ring.slot]), ring.parity);
    PrefillPlan& plan = shared.plan[ring.slot];
    plan.words[lane] = words;
    if (lane == 0) plan.item = item;
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&shared.plan_full[ring.slot]));
    ring.advance();
  }
  // Nobody takes an item after the last planner is done: the counters are left as they were found.
  if (lane == 0 && atomicAdd(&arg.counters[1], 1) == static_cast<int>(gridDim.x) - 1) {
    arg.counters[0] = 0;
    arg.counters[1] = 0;
  }
}

/// The fetching warp: for each planned item its q tiles and the selected blocks from the diagonal down.
template <int kHeadDim, int kTiles>
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

  __device__ __forceinline__ void run() {
    Ring<2> ring{};
    for (;;) {
      ptx::mbarrier_wait(ptx::shared_address(&shared.plan_full[ring.slot]), ring.parity);
      const PrefillItem item = shared.plan[ring.slot].item;
      const std::uint64_t words = shared.plan[ring.slot].words[lane];
      __syncwarp();
      if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&shared.plan_empty[ring.slot]));
      ring.advance();
      publish(item);
      if (item.head < 0) return;
      walk(item, words);
    }
  }

  /// Hands the item and its q tiles to the computing warpgroups.
  __device__ __forceinline__ void publish(const PrefillItem& item) {
    ptx::mbarrier_wait(ptx::shared_address(&shared.q_empty), q_parity);
    q_parity ^= 1;
    if (lane == 0) {
      shared.item = item;
      const std::uint32_t barrier = ptx::shared_address(&shared.q_full);
      if (item.head < 0) {
        ptx::mbarrier_arrive(barrier);
      } else {
        ptx::mbarrier_arrive_expect(barrier, kTiles * Config::kTileBytes);
        for (int t = 0; t < kTiles; ++t) {
          const PrefillItem tile = tile_of(item, t, arg.num_heads / arg.num_kv_heads);
          ptx::load_box_5d(ptx::shared_address(shared.q[t]), &maps.q, barrier, 0, tile.first_token, 0,
                           tile.head, 0);
        }
      }
    }
    __syncwarp();
  }

  /// Fetches the blocks from the diagonal down, V one block behind K: the order of use.
  __device__ __forceinline__ void walk(const PrefillItem& item, std::uint64_t first_words) {
    const int kv_head = item.head / (arg.num_heads / arg.num_kv_heads);
    const std::int32_t* pages =
        arg.page_table != nullptr ? arg.page_table + item.sequence * arg.page_table_stride : nullptr;
    const int row = (item.first_token - item.begin + kBlock - 1) / kBlock;
    int previous_token = -1;
    int previous_page = 0;
    for (int chunk = item.last >> 11; chunk >= 0; --chunk) {
      const std::uint64_t words = chunk == 0 ? first_words : load_mask_words(arg, item, row, chunk, lane);
      for (int w = min(31, (item.last >> 6) - 32 * chunk); w >= 0; --w) {
        std::uint64_t bits = __shfl_sync(0xffffffffu, words, w);
        while (bits != 0) {
          const int bit = 63 - __clzll(bits);
          bits ^= std::uint64_t{1} << bit;
          const int block = (chunk * 32 + w) * 64 + bit;
          const int page = pages != nullptr ? __ldg(pages + block) : 0;
          const int token = pages != nullptr ? 0 : item.first_key + block * kBlock;
          fetch(k_ring, shared.k, shared.k_full, shared.k_empty, maps.k, kv_head, token, page);
          if (previous_token >= 0) {
            fetch(v_ring, shared.v, shared.v_full, shared.v_empty, maps.v, kv_head, previous_token,
                  previous_page);
          }
          previous_token = token;
          previous_page = page;
        }
      }
    }
    if (previous_token >= 0) {
      fetch(v_ring, shared.v, shared.v_full, shared.v_empty, maps.v, kv_head, previous_token, previous_page);
    }
  }

  __device__ __forceinline__ void fetch(Ring<kStages>& ring,
                                        std::uint8_t (&tiles)[kStages][Config::kTileBytes],
                                        std::uint64_t (&full)[kStages], std::uint64_t (&empty)[kStages],
                                        const CUtensorMap& map, int kv_head, int token, int page) {
    ptx::mbarrier_wait(ptx::shared_address(&empty[ring.slot]), ring.parity);
    if (lane == 0) {
      const std::uint32_t barrier = ptx::shared_address(&full[ring.slot]);
      ptx::mbarrier_arrive_expect(barrier, Config::kTileBytes);
      ptx::load_box_5d(ptx::shared_address(tiles[ring.slot]), &map, barrier, 0, token, 0, kv_head, page);
    }
    ring.advance();
  }
};

/// One computing warpgroup; with kTarget it also keeps what the pooled target is made of.
template <class T, int kHeadDim, int kTiles, bool kTarget>
struct PrefillComputer {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  using Shared = PrefillShared<kHeadDim, kTiles>;
  static constexpr int kStages = Config::kStages;
  static constexpr int kSteps = kHeadDim / 16;  // k16 steps of Q K^T

  const PrefillArguments& arg;
  Shared& shared;
  const int tile;
  const int warp;
  const int lane;
  const float scale_log2;
  const float threshold;
  TargetSender target;

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

  /// Starts S = Q K^T for the next block; returns its K slot.
  __device__ __forceinline__ int start_scores(float (&s)[32]) {
    const int slot = k_ring.slot;
    ptx::mbarrier_wait(ptx::shared_address(&shared.k_full[slot]), k_ring.parity);
    k_ring.advance();
    start_products<T>(s, q, shared.k[slot]);
    return slot;
  }

  /// Starts O += P V for the next block; returns its V slot.
  __device__ __forceinline__ int start_output() {
    const int slot = v_ring.slot;
    ptx::mbarrier_wait(ptx::shared_address(&shared.v_full[slot]), v_ring.parity);
    v_ring.advance();
    const std::uint64_t v = ptx::tile_descriptor(ptx::shared_address(shared.v[slot]), kPanelBytes);
    ptx::pin(o);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) ptx::wgmma<T, true>(o, p[step], v + step * 16 * 128 / 16, 1);
    ptx::wgmma_commit();
    return slot;
  }

  /// Takes the fragments of the q tile and starts the first product, before which they have left shared
  /// memory.
  __device__ __forceinline__ int start_item(float (&s)[32]) {
    load_fragments(q, shared.q[tile], warp, lane);
    const int k_slot = start_scores(s);
    arrive(&shared.q_empty);
    return k_slot;
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
    if constexpr (kTarget) target.add(top);
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

  /// From the scores of a block after the tile's diagonal, which are dropped, to those of the next block.
  __device__ __forceinline__ void pass_over(float (&s)[32]) {
    take_turn();
    const int k_slot = start_scores(s);
    pass_turn();
    // A slot is given back in the phase in which it is full, used or not.
    ptx::mbarrier_wait(ptx::shared_address(&shared.v_full[v_ring.slot]), v_ring.parity);
    arrive(&shared.v_empty[v_ring.slot]);
    v_ring.advance();
    ptx::wgmma_wait<0>();
    ptx::pin(s);
    arrive(&shared.k_empty[k_slot]);
  }

  /// All blocks of the list. On entry Q K^T of the first is in flight from K slot `k_slot`; on return P V of
  /// the last is, from the V slot returned.
  __device__ __forceinline__ int attend(float (&s)[32], int k_slot, const PrefillItem& item) {
    float factor[2];
    ptx::wgmma_wait<0>();
    ptx::pin(s);
    arrive(&shared.k_empty[k_slot]);
    int block = 0;  // of the list, with its scores at hand
    if constexpr (kTiles == 2) {
      // One or none. After an `if` the compiler would keep descriptors in vector registers for the main loop.
      for (; block < item.blocks - 1 - item.last; ++block) pass_over(s);
    }
    if (item.diagonal != 0) hide_later_keys(s, warp, lane, 0);
    row_max[0] = row_max[1] = -INFINITY;
    row_sum[0] = row_sum[1] = 0;
    if constexpr (kTarget) target.begin(item);
    softmax(s, factor);
    pack_probabilities(s);
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) o[i] = 0;
    for (++block; block < item.blocks; ++block) {
      take_turn();
      k_slot = start_scores(s);
      const int v_slot = start_output();
      pass_turn();
      ptx::wgmma_wait<1>();
      ptx::pin(s);
      arrive(&shared.k_empty[k_slot]);
      const bool moved = softmax(s, factor);
      ptx::wgmma_wait<0>();
      ptx::pin(o);
#pragma unroll
      for (int i = 0; i < 4; ++i) ptx::pin(p[i]);
      arrive(&shared.v_empty[v_slot]);
      if (moved) {
#pragma unroll
        for (int i = 0; i < kHeadDim / 2; ++i) o[i] *= factor[i % 4 / 2];
      }
      pack_probabilities(s);
    }
    return start_output();
  }

  /// With two tiles the warpgroups take turns at starting products, so that one's softmax meets the other's
  /// products. Both have the same blocks, hence the same number of turns.
  __device__ __forceinline__ void take_turn() const {
    if constexpr (kTiles == 2) ptx::named_barrier_sync(1 + tile, 256);
  }
  __device__ __forceinline__ void pass_turn() const {
    if constexpr (kTiles == 2) ptx::named_barrier_arrive(2 - tile, 256);
  }

  __device__ __forceinline__ PrefillItem next_item() {
    ptx::mbarrier_wait(ptx::shared_address(&shared.q_full), q_parity);
    q_parity ^= 1;
    return shared.item;
  }

  /// The item as this tile has it.
  __device__ __forceinline__ PrefillItem own(const PrefillItem& item) const {
    if constexpr (kTiles == 2) return tile_of(item, tile, arg.num_heads / arg.num_kv_heads);
    return item;
  }

  __device__ __forceinline__ void run() {
    if (tile == 1) pass_turn();  // the first turn is tile 0's
    PrefillItem item = next_item();
    if (item.head < 0) {
      if constexpr (kTarget) target.stop(item);
      return;
    }
    item = own(item);
    float s[32];
    int k_slot = start_item(s);
    for (;;) {
      const int v_slot = attend(s, k_slot, item);
      const PrefillItem next = next_item();
      ptx::wgmma_wait<0>();
      ptx::pin(o);
      arrive(&shared.v_empty[v_slot]);
      if (next.head < 0) break;
      // The next item's first product runs while this one's output is stored.
      k_slot = start_item(s);
      store(item);
      item = own(next);
    }
    store(item);
    if constexpr (kTarget) {
      item.head = -1;
      target.stop(item);
    }
  }

  /// Normalises and stores the tile's own rows; a quad of lanes exchanges columns so that each lane stores 16
  /// bytes.
  __device__ __forceinline__ void store(const PrefillItem& item) {
    [[maybe_unused]] float lse_log2[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = row_sum[r];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const float inverse = 1.0f / sum;
      const int token = item.first_token + warp * 16 + r * 8 + lane / 4;
      const bool own = token >= item.begin && token < item.end;
      if (arg.lse != nullptr && own && lane % 4 == 0) {
        arg.lse[item.head * arg.total_q + token] = row_max[r] * arg.scale + logf(sum);
      }
      if constexpr (kTarget) lse_log2[r] = own ? fmaf(row_max[r], scale_log2, log2f(sum)) : INFINITY;
      T* row = static_cast<T*>(arg.out) + token * arg.out_token_stride + item.head * arg.out_head_stride;
#pragma unroll
      for (int panel = 0; panel < kHeadDim / 32; ++panel) {
        std::uint32_t u[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = (panel * 4 + i) * 4 + 2 * r;
          u[i] = ptx::pack<T>(o[n] * inverse, o[n + 1] * inverse);
        }
        transpose_quad(u, lane);
        if (own) {
          *reinterpret_cast<uint4*>(row + panel * 32 + lane % 4 * 8) = make_uint4(u[0], u[1], u[2], u[3]);
        }
      }
    }
    if constexpr (kTarget) target.end(item, lse_log2);
  }
};

template <class T, int kHeadDim, int kTiles, bool kTarget>
__global__ void __launch_bounds__(PrefillConfig<kHeadDim, kTiles>::kThreads,
                                  PrefillConfig<kHeadDim, kTiles>::kCtasPerSm)
    prefill_kernel(const __grid_constant__ PrefillMaps maps, const __grid_constant__ PrefillArguments arg) {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  using Shared = PrefillShared<kHeadDim, kTiles>;
  static_assert(sizeof(Shared) <= Config::kSharedBytes);
  extern __shared__ __align__(1024) std::uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  auto& exchange = *reinterpret_cast<TargetExchange*>(memory + Config::kSharedBytes);  // kTarget only
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
    for (int i = 0; i < 2; ++i) {
      ptx::mbarrier_init(ptx::shared_address(&shared.plan_full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.plan_empty[i]), 1);
    }
    if constexpr (kTarget) exchange.init();
    ptx::fence_mbarrier_init();
    ptx::prefetch_tensor_map(&maps.q);
    ptx::prefetch_tensor_map(&maps.k);
    ptx::prefetch_tensor_map(&maps.v);
  }
  __syncthreads();
  if (warp < 4) {
    ptx::give_registers<Config::kFetchRegisters>();
    if (warp == 0) {
      PrefillFetcher<kHeadDim, kTiles>{maps, arg, shared, lane}.run();
    } else if (warp == 1) {
      plan_items<kHeadDim, kTiles>(arg, shared, lane);
    } else if constexpr (kTarget) {
      pool_target(arg, exchange, warp - 2, lane);
    }
  } else {
    ptx::take_registers<Config::kComputeRegisters>();
    const int tile = warp / 4 - 1;
    PrefillComputer<T, kHeadDim, kTiles, kTarget> computer{arg,
                                                           shared,
                                                           tile,
                                                           warp % 4,
                                                           lane,
                                                           arg.scale * ptx::kLog2E,
                                                           kRescaleThreshold / (arg.scale * ptx::kLog2E),
                                                           TargetSender{arg, exchange, tile, warp % 4, lane}};
    computer.run();
  }
}

template <class T, int kHeadDim, int kTiles, bool kTarget>
void launch_prefill(const PrefillMaps& maps, const PrefillArguments& arguments, CUstream_st* stream) {
  using Config = PrefillConfig<kHeadDim, kTiles>;
  static_assert(!kTarget || kTiles == kSharedTiles);
  constexpr int kSharedBytes = Config::kSharedBytes + (kTarget ? sizeof(TargetExchange) : 0);
  static_assert(kSharedBytes <= 227 * 1024);
  const auto kernel = prefill_kernel<T, kHeadDim, kTiles, kTarget>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
        "attention_prefill");
  const int ctas = multiprocessors("attention_prefill") * Config::kCtasPerSm;
  kernel<<<ctas, Config::kThreads, kSharedBytes, stream>>>(maps, arguments);
  check(cudaGetLastError(), "attention_prefill");
}

}  // namespace seer::cuda
