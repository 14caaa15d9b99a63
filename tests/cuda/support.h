// What the CUDA tests share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/dtype.h"

namespace seer::cuda {

inline std::uint64_t hash(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  std::uint64_t x = (a * 0x9e3779b97f4a7c15ull) ^ (b * 0xbf58476d1ce4e5b9ull) ^ (c * 0x94d049bb133111ebull);
  x ^= x >> 31;
  x *= 0xd6e8feb86659fd93ull;
  return x ^ (x >> 32);
}

inline std::vector<std::uint16_t> to_storage(const std::vector<float>& values, DType dtype) {
  std::vector<std::uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(),
                 [&](float x) { return dtype == DType::kBF16 ? to_bfloat16(x).bits : to_float16(x).bits; });
  return bits;
}

inline std::vector<float> from_storage(const std::vector<std::uint16_t>& bits, DType dtype) {
  std::vector<float> values(bits.size());
  widen_to_float(dtype, bits.data(), values.data(), static_cast<std::int64_t>(bits.size()));
  return values;
}

/// In every `block` of consecutive elements the largest |actual - exact| is at most twice the largest |plain
/// - exact|, where `plain` is the same maths with scores, probabilities and result rounded to the storage
/// type: what plain tensor code in that type does. PyTorch's rounds the scaled scores once more. No other
/// allowance. Records the largest of both in the test's results.
inline ::testing::AssertionResult within_twice(const std::vector<float>& actual,
                                               const std::vector<double>& plain,
                                               const std::vector<double>& exact, std::int64_t block) {
  if (actual.size() != exact.size() || plain.size() != exact.size())
    return ::testing::AssertionFailure() << "sizes " << actual.size() << " and " << exact.size();
  double largest = 0;
  double largest_plain = 0;
  for (std::size_t begin = 0; begin < exact.size(); begin += static_cast<std::size_t>(block)) {
    const std::size_t end = std::min(exact.size(), begin + static_cast<std::size_t>(block));
    double error = 0;
    double plain_error = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const double difference = std::abs(actual[i] - exact[i]);
      if (std::isnan(difference))
        return ::testing::AssertionFailure()
               << "element " << i << ": " << actual[i] << ", expected " << exact[i];
      error = std::max(error, difference);
      plain_error = std::max(plain_error, std::abs(plain[i] - exact[i]));
    }
    if (!(error <= 2 * plain_error))
      return ::testing::AssertionFailure() << "elements " << begin << " to " << end << ": error " << error
                                           << ", of plain code " << plain_error;
    largest = std::max(largest, error);
    largest_plain = std::max(largest_plain, plain_error);
  }
  ::testing::Test::RecordProperty("error", ::testing::PrintToString(largest));
  ::testing::Test::RecordProperty("plain_error", ::testing::PrintToString(largest_plain));
  return ::testing::AssertionSuccess();
}

}  // namespace seer::cuda
