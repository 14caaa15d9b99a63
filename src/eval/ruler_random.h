// Random numbers of the RULER generator: the same on every machine and compiler.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"
#include "eval/sample_log.h"

namespace seer {

class RulerRandom {
 public:
  explicit RulerRandom(std::uint64_t seed) : seed_(seed) {}

  std::uint64_t next() { return Fingerprint().add(seed_).add(count_++).value(); }
  /// 0 to n - 1; n must be positive.
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(n));
  }
  template <class T>
  const T& pick(std::span<const T> values) {
    return values[static_cast<std::size_t>(below(static_cast<std::int64_t>(values.size())))];
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i)
      std::swap(values[i - 1], values[static_cast<std::size_t>(below(static_cast<std::int64_t>(i)))]);
  }
  /// `count` different numbers of 0 to n - 1, in random order.
  std::vector<std::int64_t> sample(std::int64_t n, std::int64_t count) {
    std::vector<std::int64_t> numbers;
    for (std::set<std::int64_t> seen; static_cast<std::int64_t>(numbers.size()) < count;)
      if (const std::int64_t number = below(n); seen.insert(number).second) numbers.push_back(number);
    return numbers;
  }
  /// `length` letters of `alphabet`.
  std::string word(std::string_view alphabet, std::int64_t length) {
    std::string letters;
    for (std::int64_t i = 0; i < length; ++i)
      letters += alphabet[static_cast<std::size_t>(below(static_cast<std::int64_t>(alphabet.size())))];
    return letters;
  }

 private:
  std::uint64_t seed_;
  std::uint64_t count_ = 0;
};

/// Texts of `make(random)` none of which comes twice. next() throws Error when there seem to be no more.
template <class Make>
class DistinctTexts {
 public:
  DistinctTexts(RulerRandom& random, Make make) : random_(random), make_(std::move(make)) {}
  std::string next() {
    constexpr int kTries = 10000;
    for (int i = 0; i < kTries; ++i)
      if (std::string text = make_(random_); seen_.insert(text).second) return text;
    fail("RULER: there are no more than about {} different names for one sample; ask for a shorter length",
         seen_.size());
  }

 private:
  RulerRandom& random_;
  Make make_;
  std::set<std::string> seen_;
};

}  // namespace seer
