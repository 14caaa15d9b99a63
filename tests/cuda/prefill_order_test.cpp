// The order of prefill attention's items. Runs without a GPU.
#include "cuda/prefill_order.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

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

}  // namespace
}  // namespace seer::cuda
