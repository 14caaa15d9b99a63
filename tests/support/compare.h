// Comparisons of arrays in tests. A NaN where none is expected fails every one of them.
#pragma once

#include <gtest/gtest.h>

#include <span>

namespace seer::test {

/// Every |actual - expected| <= absolute + relative * |expected|; equal infinities agree. Reports the worst
/// index, both values and the share that passes.
::testing::AssertionResult all_close(std::span<const float> actual, std::span<const float> expected,
                                     double absolute, double relative = 0);
::testing::AssertionResult all_close(std::span<const float> actual, std::span<const double> expected,
                                     double absolute, double relative = 0);

/// Cosine of two vectors, in float64; NaN if either has one.
double cosine(std::span<const float> a, std::span<const float> b);

/// Largest |a - b|; NaN if any difference is.
double max_difference(std::span<const float> a, std::span<const float> b);

/// Standard deviation, in float64.
double standard_deviation(std::span<const float> values);

/// Deterministic standard-normal values for (seed); the same on every machine.
void fill_normal(std::span<float> values, unsigned long long seed, float scale = 1.0f);

}  // namespace seer::test
