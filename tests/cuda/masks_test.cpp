// The masks that attention is timed with. Runs without a GPU.
#include "masks.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdio>
#include <fstream>

#include "core/check.h"

namespace seer::cuda {
namespace {

constexpr int kHeads = 16;
constexpr int kKvHeads = 4;
constexpr std::int64_t kBlocks = 200;
constexpr std::int64_t kWords = 4;

const std::uint64_t* row_of(const BenchMask& mask, int head, std::int64_t row) {
  return mask.bits.data() + (head * kBlocks + row) * kWords;
}

bool test(const std::uint64_t* row, std::int64_t block) { return (row[block / 64] >> (block % 64) & 1) != 0; }

std::int64_t count(const std::uint64_t* row) {
  std::int64_t total = 0;
  for (std::int64_t w = 0; w < kWords; ++w) total += std::popcount(row[w]);
  return total;
}

TEST(Masks, AreCausalWithTheDiagonalAndAboutAsDenseAsAsked) {
  for (const char* kind : {"random", "group_random", "uneven", "local"}) {
    for (const double density : {0.5, 0.1}) {
      const BenchMask mask = make_mask(kind, kHeads, kKvHeads, kBlocks, density);
      EXPECT_NEAR(mask.density, density, 0.1 * density) << kind;
      double selected = 0;
      for (int h = 0; h < mask.heads; ++h) {
        for (std::int64_t r = 0; r < kBlocks; ++r) {
          const std::uint64_t* row = row_of(mask, h, r);
          EXPECT_TRUE(test(row, r));
          for (std::int64_t j = r + 1; j < kWords * 64; ++j) ASSERT_FALSE(test(row, j)) << kind << r << j;
          selected += static_cast<double>(count(row));
        }
      }
      EXPECT_DOUBLE_EQ(mask.density, selected / (mask.heads * kBlocks * (kBlocks + 1) / 2.0));
    }
  }
}

TEST(Masks, RandomRowsKeepAsManyBlocksAsTopK) {
  const BenchMask mask =
      make_mask("random", kHeads, kKvHeads, kBlocks, 0.19);  // 1 - sqrt(0.81) = 0.1 of a row
  ASSERT_EQ(mask.heads, kHeads);
  for (int h = 0; h < kHeads; ++h)
    for (std::int64_t r = 0; r < kBlocks; ++r)
      ASSERT_EQ(count(row_of(mask, h, r)), std::min<std::int64_t>(r + 1, 20));
}

TEST(Masks, LocalIsTheFirstBlockAndABand) {
  const BenchMask mask = make_mask("local", kHeads, kKvHeads, kBlocks, 0.19);
  ASSERT_EQ(mask.heads, kKvHeads);
  for (std::int64_t j = 0; j < kBlocks; ++j)
    EXPECT_EQ(test(row_of(mask, 1, 150), j), j == 0 || (j > 150 - 19 && j <= 150)) << j;
}

TEST(Masks, EveryEighthHeadIsDense) {
  const BenchMask mask = make_mask("dense_head", kHeads, kKvHeads, kBlocks, 0.1);
  for (int h = 0; h < kHeads; ++h) EXPECT_EQ(count(row_of(mask, h, 150)) == 151, h % 8 == 3) << h;
}

TEST(Masks, SavedOnesAreReadWithoutTheBlocksAfterTheDiagonal) {
  const std::string path = ::testing::TempDir() + "layer_00.mask";
  for (const int heads : {kHeads, kKvHeads}) {
    const std::vector<std::uint64_t> words(static_cast<std::size_t>(heads * kBlocks * kWords),
                                           ~std::uint64_t{0});
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(words.data()), static_cast<std::streamsize>(words.size() * 8));
    const BenchMask mask = make_mask("saved:" + path, kHeads, kKvHeads, kBlocks, 1);
    EXPECT_EQ(mask.heads, heads);
    EXPECT_DOUBLE_EQ(mask.density, 1);
    for (std::int64_t r = 0; r < kBlocks; ++r) ASSERT_EQ(count(row_of(mask, heads - 1, r)), r + 1);
  }
  EXPECT_THROW(make_mask("saved:" + path, kHeads, kKvHeads, kBlocks + 1, 1), Error);
  std::remove(path.c_str());
  EXPECT_THROW(make_mask("saved:" + path, kHeads, kKvHeads, kBlocks, 1), Error);
  EXPECT_THROW(make_mask("sink", kHeads, kKvHeads, kBlocks, 1), Error);
}

}  // namespace
}  // namespace seer::cuda
