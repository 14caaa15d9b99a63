// The order of prefill attention's items. Runs without a GPU.
#include "cuda/prefill_order.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>
#include <utility>

#include "cuda/prefill_item.h"

namespace seer::cuda {
namespace {

TEST(PrefillOrder, SectionsHoldAsManyHeadsAsFit) {
  EXPECT_EQ(section_heads(8192, 128, 8), 4);
  EXPECT_EQ(section_heads(32768, 128, 8), 1);
  EXPECT_EQ(section_heads(32768, 64, 8), 2);
  EXPECT_EQ(section_heads(100, 128, 8), 8);
  EXPECT_EQ(section_heads(0, 128, 8), 8);
  EXPECT_EQ(section_heads(1 << 30, 128, 8), 1);
}

TEST(PrefillOrder, EveryItemComesOnceAndLongRowsFirst) {
  for (const int kv_heads : {1, 2, 5, 8}) {
    for (const int head_sets : {1, 2, 7}) {
      for (const int rows : {1, 3, 17}) {
        for (int together = 1; together <= kv_heads; ++together) {
          std::set<std::tuple<int, int, int>> seen;
          PrefillPlace previous{};
          for (int i = 0; i < kv_heads * rows * head_sets; ++i) {
            const PrefillPlace place = prefill_place(i, rows, head_sets, kv_heads, together);
            ASSERT_TRUE(place.rank >= 0 && place.rank < rows);
            ASSERT_TRUE(place.kv_head >= 0 && place.kv_head < kv_heads);
            ASSERT_TRUE(place.head_set >= 0 && place.head_set < head_sets);
            ASSERT_TRUE(seen.emplace(place.rank, place.kv_head, place.head_set).second);
            const int section = place.kv_head / together;
            const int previous_section = previous.kv_head / together;
            ASSERT_TRUE(section > previous_section ||
                        (section == previous_section && place.rank >= previous.rank));
            previous = place;
          }
        }
      }
    }
  }
}

// Both tiles of every pair as the kernel finds them, for one KV head.
TEST(PrefillOrder, PairsOfAnyGroupHaveEveryTileOnce) {
  constexpr int kOffset = 3;  // block rows of keys before the queries
  for (const int group : {1, 2, 3, 4, 5, 7, 8}) {
    for (const int rows : {1, 2, 3, 8, 17}) {
      const int row_sets = (rows + pair_rows(group) - 1) / pair_rows(group);
      const int pairs = group * pair_rows(group) / 2;
      std::set<std::pair<int, int>> seen;
      int ownerless = 0;
      for (int i = 0; i < row_sets * pairs; ++i) {
        const PrefillPlace place = first_of_pair(prefill_place(i, row_sets, pairs, 1, 1), group);
        const int row = rows - 1 - place.rank;
        if (row < 0) continue;
        const PrefillItem item = {
            .head = place.head_set, .first_token = row * kBlock, .end = rows * kBlock, .last = kOffset + row};
        for (int t = 0; t < 2; ++t) {
          const PrefillItem tile = tile_of<true>(item, t, group);
          ASSERT_TRUE(tile.head >= 0 && tile.head < group);
          if (tile.begin == tile.end) {
            ++ownerless;
            continue;
          }
          const int row_of_tile = tile.first_token / kBlock;
          ASSERT_EQ(tile.last, kOffset + row_of_tile);
          ASSERT_TRUE(item.last - tile.last == 0 || (t == 1 && item.last - tile.last == 1));
          ASSERT_TRUE(seen.emplace(row_of_tile, tile.head).second);
        }
      }
      EXPECT_EQ(static_cast<int>(seen.size()), rows * group);
      EXPECT_EQ(ownerless, rows * group % 2);
    }
  }
}

}  // namespace
}  // namespace seer::cuda
