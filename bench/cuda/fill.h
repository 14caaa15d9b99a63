// Random inputs and hashes of outputs, on the device.
#pragma once

#include <cstdint>

namespace seer::cuda {

/// Fills `count` bf16 elements with standard-normal values by (seed, index).
void fill_normal_bf16(std::uint16_t* values, std::int64_t count, std::uint64_t seed);

/// Adds a hash of the words and their places to *sum.
void hash_words(const std::uint32_t* words, std::int64_t count, std::uint64_t* sum);

}  // namespace seer::cuda
