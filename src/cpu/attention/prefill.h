// Block-sparse causal prefill attention on the CPU: the schedule, and the interface of its bodies.
// docs/kernels/cpu_attention.md tells how it works and what was measured.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/attention.h"

namespace seer::cpu {

/// As seer::attention_prefill, for checked params.
void attention_prefill(const Context& context, const PrefillAttentionParams& params);

/// The queries of one head in one block row: what one score matrix is computed for.
struct PrefillTile {
  int head = 0;
  int rows = 0;                         // 1..64
  std::int64_t first_token = 0;         // of q
  std::int64_t first_position = 0;      // of the sequence
  std::int64_t block_row = 0;           // of the whole attention map
  const std::uint64_t* mask = nullptr;  // this row's words; nullptr: dense
  float* pooled_target = nullptr;       // this row's [pooled_target_stride], or nullptr
};

/// Tiles of an item at most: their queries and outputs must stay in the L2 cache.
inline constexpr int kMaxTiles = 8;

/// Sizes and places of the scratch of an item, in floats from its start or from its tile's.
struct PrefillScratch {
  static constexpr std::int64_t kSumLanes = 16;    // the widest ISA's
  static constexpr std::int64_t kPaddedRows = 66;  // 64 rows in whole groups of any ISA

  std::int64_t scores = 0;        // [64][64] S, then P; [64][128] where tiles take two blocks at a time
  std::int64_t widened = 0;       // K [head_dim][64], V [64][head_dim] of bf16 pages
  std::int64_t tiles = 0;         // per tile, tile_size apart:
  std::int64_t q = 0;             //   [row group][words / kChunk][rows of a group][kChunk] words
  std::int64_t out = 0;           //   [64][head_dim]
  std::int64_t maximum = 0;       //   [64] reference maxima, in units of log2
  std::int64_t sum = 0;           //   [64][kSumLanes] partial row sums
  std::int64_t block_maxima = 0;  //   [blocks][64] row maxima in units of log2, for pooled_target
  std::int64_t tile_size = 0;
  std::int64_t size = 0;

  /// For `num_tiles` tiles of up to `num_blocks` key blocks.
  PrefillScratch(const PrefillAttentionParams& params, int num_tiles, std::int64_t num_blocks);
};

/// Tiles that share a KV head, and so its K and V tiles while these are in cache.
struct PrefillItem {
  const PrefillAttentionParams* params = nullptr;
  const PrefillTile* tiles = nullptr;
  int num_tiles = 0;
  int kv_head = 0;
  const PrefillScratch* place = nullptr;
  float* scratch = nullptr;  // [place->size], 64-byte aligned
};

/// attention_prefill with a given body.
using PrefillItemBody = void (*)(const PrefillItem&);
void attention_prefill(const Context& context, const PrefillAttentionParams& params, PrefillItemBody body);

void attention_prefill_item_portable(const PrefillItem& item);
void attention_prefill_item_avx2(const PrefillItem& item);
void attention_prefill_item_avx512(const PrefillItem& item);
/// bf16 pages only.
void attention_prefill_item_avx512bf16(const PrefillItem& item);
/// bf16 pages and a head_dim that is a multiple of 32 only.
void attention_prefill_item_amxbf16(const PrefillItem& item);

}  // namespace seer::cpu
