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

TEST(PrefillOrder, RowsThatQueriesTouch) {
  EXPECT_EQ(query_rows(0, 0), 0);
  EXPECT_EQ(query_rows(0, 65), 0);
  EXPECT_EQ(query_rows(1, 1), 1);
  EXPECT_EQ(query_rows(64, 64), 1);
  EXPECT_EQ(query_rows(65, 65), 2);
  EXPECT_EQ(query_rows(2, 65), 2);
  EXPECT_EQ(query_rows(1, 65), 1);
  EXPECT_EQ(query_rows(64, 65), 2);
  EXPECT_EQ(query_rows(65, 65 + 63), 2);
  EXPECT_EQ(query_rows(1, 0x7fffffff), 1);
}

// Both tiles of every pair as the kernel finds them, for one KV head of a sequence that may be shorter than
// others.
TEST(PrefillOrder, PairsOfAnyGroupHaveEveryTileOnce) {
  constexpr int kBegin = 1000;  // queries of other sequences before
  for (const int group : {1, 2, 3, 4, 5, 7, 8}) {
    for (const int queries : {1, 2, 64, 65, 128, 500, 1088}) {
      for (const int offset : {0, 1, 63, 64, 192, 200}) {
        const int rows = query_rows(queries, offset + queries);
        for (const int max_rows : {rows, rows + 1, rows + 2, rows + 7}) {
          const int row_sets = (max_rows + pair_rows(group) - 1) / pair_rows(group);
          const int pairs = group * pair_rows(group) / 2;
          std::set<std::pair<int, int>> seen;
          int ownerless = 0;
          for (int i = 0; i < row_sets * pairs; ++i) {
            const PrefillPlace place = first_of_pair(prefill_place(i, row_sets, pairs, 1, 1), group);
            const int row = rows - 1 - place.rank;
            if (row < 0) continue;
            const int last = offset / kBlock + row;
            const PrefillItem item = {.head = place.head_set,
                                      .first_token = kBegin + last * kBlock - offset,
                                      .begin = kBegin,
                                      .end = kBegin + queries,
                                      .last = last};
            for (int t = 0; t < 2; ++t) {
              const PrefillItem tile = tile_of(item, t, group);
              ASSERT_TRUE(tile.head >= 0 && tile.head < group);
              if (tile.begin == tile.end) {
                ++ownerless;
                continue;
              }
              // Its rows are those of its diagonal block, some of them its own.
              ASSERT_EQ(tile.first_token - kBegin + offset, tile.last * kBlock);
              ASSERT_TRUE(tile.first_token < tile.end && tile.first_token + kBlock > tile.begin);
              ASSERT_TRUE(item.last - tile.last == 0 || (t == 1 && item.last - tile.last == 1));
              ASSERT_TRUE(seen.emplace(tile.last, tile.head).second);
            }
          }
          EXPECT_EQ(static_cast<int>(seen.size()), rows * group);
          EXPECT_EQ(ownerless, rows * group % 2);
        }
      }
    }
  }
}

}  // namespace
}  // namespace seer::cuda
