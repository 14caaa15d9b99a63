// Tells in one line what does not fit into a GPU's memory, before it is begun.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace seer {

struct DeviceMemory {
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;
};

/// Of the current device, now.
DeviceMemory device_memory();

inline double gibibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

/// "--max-context: a context of 5 tokens": what and unit are the words before and after the count.
struct MemoryDemand {
  std::string what;
  std::int64_t count = 0;
  std::string unit;
  std::string beside;     // said after the unit; may be empty
  std::int64_t step = 1;  // the largest count that would fit is told as a multiple of this
  /// What `count` of them need beyond memory that is held already; does not fall with the count.
  std::function<std::int64_t(std::int64_t count)> bytes;
};

/// The largest multiple of demand.step, at most demand.count, whose bytes are at most `bytes`; 0 if none are.
std::int64_t largest_fitting(const MemoryDemand& demand, std::int64_t bytes);

/// Throws Error with needed and free bytes and the largest count that would fit, if this one does not.
void require_memory(const MemoryDemand& demand, const DeviceMemory& memory);

}  // namespace seer
