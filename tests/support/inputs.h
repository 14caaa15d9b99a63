// What tests feed to what they test.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/context.h"
#include "support/compare.h"

namespace seer::test {

/// fill_normal() in a vector.
inline std::vector<float> normal(std::int64_t size, unsigned long long seed, float scale = 1.0f) {
  std::vector<float> values(static_cast<std::size_t>(size));
  fill_normal(values, seed, scale);
  return values;
}

/// NaN everywhere: an output that must be written whole.
inline std::vector<float> poisoned(std::int64_t size) {
  return std::vector<float>(static_cast<std::size_t>(size), NAN);
}

/// Token ids that do not repeat soon; always the same.
inline std::vector<std::int32_t> some_tokens(std::int64_t count, std::int64_t vocab) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>((i * i * 31 + i * 7 + 3) % static_cast<std::uint64_t>(vocab));
  return tokens;
}

/// Runs `body` for every instruction set and for one and two threads.
template <class Body>
void on_every_context(Body&& body) {
  for (const CpuIsa isa : available_cpu_isas()) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(std::string(name_of(isa)) + ", threads " + std::to_string(threads));
      body(Context(threads, isa));
    }
  }
}

}  // namespace seer::test
