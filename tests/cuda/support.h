// What the CUDA tests share.
#pragma once

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

/// Largest |actual - expected|; NaN if any difference is.
inline double worst(const std::vector<float>& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    if (!(error <= largest)) largest = error;
    if (std::isnan(error)) return error;
  }
  return largest;
}

inline double worst(const std::vector<double>& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i)
    largest = std::max(largest, std::abs(actual[i] - expected[i]));
  return largest;
}

}  // namespace seer::cuda
