// The order in which prefill attention's items are worked on. Results do not depend on it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/prefill_item.h"

namespace seer::cuda {

/// Block rows that the queries of a sequence touch, the last tokens of its keys.
constexpr int query_rows(int queries, int keys) {
  return queries == 0 ? 0 : (keys - 1) / kBlock - (keys - queries) / kBlock + 1;
}

/// What a section's keys and values may take of L2: what one KV head takes at 32k tokens and head dimension
/// 128, which was measured to be reused well.
inline constexpr int kSectionBytes = 16 << 20;

/// KV heads of a section of shared tiles: as many as fit, at least one. Separate tiles, which read L2 twice
/// as often, are faster with one (docs/kernels/hopper_prefill.md).
constexpr int section_heads(int keys, int head_dim, int num_kv_heads) {
  const int tokens = kSectionBytes / (2 * 2 * head_dim);  // of one KV head, in types of two bytes
  return std::clamp(tokens / std::max(keys, 1), 1, num_kv_heads);
}

/// An item of one sequence: the block row that `rank` others come after, and query heads
/// head_set * tiles ... of a KV head's group.
struct PrefillPlace {
  int rank;
  int kv_head;
  int head_set;
};

/// Item `number` of a sequence, of num_kv_heads * rows * head_sets: by sections of KV heads, whose keys stay
/// in L2; in a section the last rows first, which may have the most blocks; so a row that takes long starts
/// early.
constexpr PrefillPlace prefill_place(int number, int rows, int head_sets, int num_kv_heads,
                                     int section_heads) {
  const int section_items = rows * head_sets * section_heads;
  const int section = number / section_items;
  const int first_head = section * section_heads;
  const int row_items = std::min(section_heads, num_kv_heads - first_head) * head_sets;
  const int within = number - section * section_items;
  const int rank = within / row_items;
  const int set = within - rank * row_items;
  return {rank, first_head + set / head_sets, set % head_sets};
}

/// Pairs of tiles are taken from the heads of so many block rows of a KV head, laid end to end: an odd group
/// fills its pairs with two rows.
constexpr int pair_rows(int group) { return 1 + group % 2; }

/// The first tile of a pair, whose place counts pair_rows() rows as one and pairs as head sets: now the rank
/// of its row, and its head in the group as head_set.
constexpr PrefillPlace first_of_pair(const PrefillPlace& pair, int group) {
  const int tile = 2 * pair.head_set;
  return {pair.rank * pair_rows(group) + tile / group, pair.kv_head, tile % group};
}

}  // namespace seer::cuda
