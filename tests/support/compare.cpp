#include "support/compare.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

namespace seer::test {
namespace {

template <class Expected>
::testing::AssertionResult close(std::span<const float> actual, std::span<const Expected> expected,
                                 double absolute, double relative) {
  if (actual.size() != expected.size())
    return ::testing::AssertionFailure() << "sizes differ: " << actual.size() << " and " << expected.size();
  std::size_t bad = 0, worst = 0;
  double worst_excess = -1;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i], e = expected[i];
    if (a == e) continue;  // covers equal infinities
    const double error = std::abs(a - e), limit = absolute + relative * std::abs(e);
    if (error <= limit) continue;
    ++bad;
    const double excess =
        std::isfinite(error) ? error / (limit + 1e-300) : std::numeric_limits<double>::infinity();
    if (excess > worst_excess) worst_excess = excess, worst = i;
  }
  if (bad == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << bad << " of " << actual.size() << " elements are off; worst at " << worst << ": actual "
         << actual[worst] << ", expected " << expected[worst] << " (absolute " << absolute << ", relative "
         << relative << ")";
}

std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

::testing::AssertionResult all_close(std::span<const float> actual, std::span<const float> expected,
                                     double absolute, double relative) {
  return close(actual, expected, absolute, relative);
}

::testing::AssertionResult all_close(std::span<const float> actual, std::span<const double> expected,
                                     double absolute, double relative) {
  return close(actual, expected, absolute, relative);
}

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

double max_difference(std::span<const float> a, std::span<const float> b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(difference)) return difference;
  }
  return largest;
}

double standard_deviation(std::span<const float> values) {
  double sum = 0, squares = 0;
  for (const float value : values) sum += value, squares += static_cast<double>(value) * value;
  const double n = static_cast<double>(values.size()), mean = sum / n;
  return std::sqrt(squares / n - mean * mean);
}

void fill_normal(std::span<float> values, unsigned long long seed, float scale) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t bits = mix(mix(seed) + i);
    const double u = (static_cast<double>(bits >> 40) + 0.5) * 0x1p-24;
    const double v = static_cast<double>(bits & 0xffffffu) * 0x1p-24;
    values[i] = scale * static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
  }
}

}  // namespace seer::test
