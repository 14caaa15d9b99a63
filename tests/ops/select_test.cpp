#include "ops/select.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/check.h"
#include "ops/gate.h"
#include "ops/reference/select.h"
#include "support/compare.h"

namespace seer {
namespace {

/// Scores [heads, n, n]; one in three is repeated in the column before, so that ties occur.
std::vector<float> scores_with_ties(int heads, std::int64_t n, unsigned seed) {
  std::vector<float> scores(static_cast<std::size_t>(heads * n * n));
  test::fill_normal(scores, seed, 2.0f);
  for (std::size_t i = 1; i < scores.size(); i += 3) scores[i] = scores[i - 1];
  return scores;
}

TEST(TopK, FollowsTheNonZeroRatio) {
  EXPECT_EQ(top_k_for_nz_ratio(0.1, 32), 1);
  EXPECT_EQ(top_k_for_nz_ratio(0.1, 64), 3);
  EXPECT_EQ(top_k_for_nz_ratio(0.5, 64), 18);
  EXPECT_EQ(top_k_for_nz_ratio(1.0, 17), 17);
  EXPECT_EQ(top_k_for_nz_ratio(0.0, 17), 1);
  EXPECT_EQ(top_k_for_nz_ratio(0.75, 10), 5);  // 1 - sqrt(1/4) is exact
}

TEST(SelectBlocks, MatchesTheDefinitionInChunks) {
  const int heads = 3;
  for (const std::int64_t n : {1, 2, 20, 70}) {
    for (const SelectRule rule : {SelectRule::kDense, SelectRule::kNzRatio, SelectRule::kThreshold,
                                  SelectRule::kTopP, SelectRule::kResidual}) {
      for (const double value : {0.0, 0.02, 0.2, 0.6, 1.0}) {
        for (const bool last_dense : {false, true}) {
          auto scores = scores_with_ties(heads, n, 21);
          if (rule != SelectRule::kNzRatio) causal_softmax(Context(1), scores.data(), heads, n, 0, n);
          const SelectParams params{rule, value, last_dense, n};
          for (const std::int64_t chunk : {n, std::int64_t{16}}) {
            for (std::int64_t first = 0; first < n; first += chunk) {
              const std::int64_t rows = std::min(chunk, n - first), stride = first + rows + 3;
              std::vector<float> part(static_cast<std::size_t>(heads * rows * stride), NAN);
              for (int h = 0; h < heads; ++h)
                for (std::int64_t r = 0; r < rows; ++r)
                  std::copy_n(scores.data() + (h * n + first + r) * n, first + r + 1,
                              part.data() + (h * rows + r) * stride);
              BlockMask mask(heads, first, rows);
              select_blocks(Context(2), part.data(), stride, params, mask);
              for (int h = 0; h < heads; ++h) {
                for (std::int64_t r = 0; r < rows; ++r) {
                  const auto expected = reference::select_row(
                      {scores.data() + (h * n + first + r) * n, static_cast<std::size_t>(first + r + 1)},
                      params);
                  std::int64_t count = 0;
                  for (std::int64_t j = 0; j <= first + r; ++j) {
                    ASSERT_EQ(mask.test(h, r, j), expected[static_cast<std::size_t>(j)] != 0)
                        << "rule " << static_cast<int>(rule) << " value " << value << " row " << first + r
                        << " block " << j;
                    count += expected[static_cast<std::size_t>(j)];
                  }
                  ASSERT_EQ(mask.count(h, r), count);  // nothing after the diagonal
                  ASSERT_GT(count, 0);
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST(SelectTopK, KeepsTheLargestAndTheLaterOfEquals) {
  const std::int64_t n = 70, first = 64;
  const int heads = 3;
  auto scores = scores_with_ties(heads, n, 22);
  for (const std::int64_t k : {1, 5, 68, 200}) {
    BlockMask mask(heads, first, n - first);
    select_top_k(Context(2), scores.data(), n, k, mask);
    for (int head = 0; head < heads; ++head) {
      for (std::int64_t row = 0; row < n - first; ++row) {
        const float* s = scores.data() + (head * (n - first) + row) * n;
        const std::int64_t causal = first + row + 1;
        for (std::int64_t j = 0; j < causal; ++j) {
          std::int64_t better = 0;
          for (std::int64_t i = 0; i < causal; ++i) better += s[i] > s[j] || (s[i] == s[j] && i > j);
          ASSERT_EQ(mask.test(head, row, j), better < k)
              << "head " << head << " row " << row << " block " << j;
        }
      }
    }
  }
  BlockMask mask(heads, first, n - first);
  EXPECT_THROW(select_top_k(Context(1), scores.data(), n, 0, mask), Error);
}

TEST(SelectBlocks, NanScoresSelectSomethingAndStayInBounds) {
  const std::int64_t n = 40;
  std::vector<float> scores(static_cast<std::size_t>(n * n), NAN);
  for (const SelectRule rule :
       {SelectRule::kNzRatio, SelectRule::kThreshold, SelectRule::kTopP, SelectRule::kResidual}) {
    BlockMask mask(1, 0, n);
    select_blocks(Context(1), scores.data(), n, {rule, 0.3, false, n}, mask);
    for (std::int64_t row = 0; row < n; ++row) EXPECT_GT(mask.count(0, row), 0);
  }
}

TEST(SelectSinkLocal, HasTheBudgetOfTopK) {
  const std::int64_t n = 50;
  for (const double ratio : {0.05, 0.1, 0.3, 0.9, 1.0}) {
    const std::int64_t k = top_k_for_nz_ratio(ratio, n);
    BlockMask mask(2, 0, n);
    select_sink_local({SelectRule::kNzRatio, ratio, false, n}, mask);
    for (int head = 0; head < 2; ++head) {
      for (std::int64_t row = 0; row < n; ++row) {
        // With a budget of one block both the first and the diagonal block are kept.
        EXPECT_EQ(mask.count(head, row), std::min(row + 1, std::max<std::int64_t>(k, 2)));
        EXPECT_TRUE(mask.test(head, row, 0));
        EXPECT_TRUE(mask.test(head, row, row));
      }
    }
  }
  EXPECT_THROW(
      {
        BlockMask mask(1, 0, 4);
        select_sink_local({SelectRule::kThreshold, 0.1, false, 4}, mask);
      },
      Error);
}

TEST(SelectRandom, HasTheBudgetAndDependsOnSeedLayerHeadAndRowAlone) {
  const std::int64_t n = 50, first = 32;
  const SelectParams params{SelectRule::kNzRatio, 0.3, true, n};
  BlockMask all(3, 0, n), tail(3, first, n - first), other_seed(3, 0, n), other_layer(3, 0, n);
  select_random(params, 7, 1, all);
  select_random(params, 7, 1, tail);
  select_random(params, 8, 1, other_seed);
  select_random(params, 7, 2, other_layer);
  const std::int64_t k = top_k_for_nz_ratio(0.3, n);
  int same_as_seed = 0, same_as_layer = 0, same_as_head = 0;
  for (int head = 0; head < 3; ++head) {
    for (std::int64_t row = 0; row < n; ++row) {
      EXPECT_TRUE(all.test(head, row, row));
      EXPECT_EQ(all.count(head, row), row >= n - 2 ? row + 1 : std::min(row + 1, k));
      if (row >= first) {
        EXPECT_EQ(all.row(head, row)[0], tail.row(head, row - first)[0]);
      }
      if (row < 2 * k || row >= n - 2) continue;
      same_as_seed += all.row(head, row)[0] == other_seed.row(head, row)[0];
      same_as_layer += all.row(head, row)[0] == other_layer.row(head, row)[0];
      same_as_head += all.row(head, row)[0] == all.row((head + 1) % 3, row)[0];
    }
  }
  EXPECT_EQ(same_as_seed + same_as_layer + same_as_head, 0);
}

}  // namespace
}  // namespace seer
