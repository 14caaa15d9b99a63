// Random inputs and hashes of outputs, on the device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace seer::cuda {

/// Fills `count` elements of type BF16 or F16 with standard-normal values by (seed, index).
void fill_normal(DType dtype, void* values, std::int64_t count, std::uint64_t seed);

/// Adds a hash of the words and their places to *sum.
void hash_words(const std::uint32_t* words, std::int64_t count, std::uint64_t* sum);

}  // namespace seer::cuda
