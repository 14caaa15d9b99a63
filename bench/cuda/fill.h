// Random inputs made on the device.
#pragma once

#include <cstdint>

namespace seer::cuda {

/// Fills `count` bf16 elements with standard-normal values by (seed, index).
void fill_normal_bf16(std::uint16_t* values, std::int64_t count, std::uint64_t seed);

}  // namespace seer::cuda
