#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/check.h"
#include "core/context.h"
#include "core/dtype.h"

namespace seer {
namespace {

TEST(DType, BFloat16RoundsToNearestEven) {
  EXPECT_EQ(to_bfloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bfloat16(1.00390625f).bits, 0x3f80);  // halfway, even below
  EXPECT_EQ(to_bfloat16(1.01171875f).bits, 0x3f82);  // halfway, even above
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(to_float(to_bfloat16(std::numeric_limits<float>::max()))));
}

TEST(DType, Float16RoundTripsEveryValue) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) continue;
    EXPECT_EQ(to_float16(value).bits, bits);
  }
  EXPECT_EQ(to_float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_float16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(to_float16(0x1p-25f).bits, 0);  // halfway to the smallest subnormal, even below
}

TEST(Context, ParallelForVisitsEveryItemOnce) {
  for (int threads : {1, 2, 5}) {
    std::vector<int> visits(1000, 0);
    Context(threads).parallel_for(1000, [&](std::int64_t item, int thread) {
      EXPECT_LT(thread, threads);
      ++visits[static_cast<std::size_t>(item)];
    });
    EXPECT_EQ(visits, std::vector<int>(1000, 1));
  }
}

TEST(Context, ParallelForRethrows) {
  EXPECT_THROW(
      Context(2).parallel_for(100, [](std::int64_t item, int) { SEER_CHECK(item != 57, "item {}", item); }),
      Error);
}

TEST(Context, ParallelRangesCoverOnceAndKeepTheGrain) {
  for (std::int64_t size : {0, 1, 63, 64, 65, 1000}) {
    std::vector<int> visits(static_cast<std::size_t>(size), 0);
    Context(3).parallel_ranges(size, 64, [&](std::int64_t begin, std::int64_t end, int) {
      EXPECT_EQ(begin % 64, 0);
      for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
    });
    EXPECT_EQ(std::accumulate(visits.begin(), visits.end(), std::int64_t{0}), size);
  }
}

}  // namespace
}  // namespace seer
