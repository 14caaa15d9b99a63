// Position in a ring of tiles that pass through shared memory.
#pragma once

#include <cstdint>

namespace seer::cuda {

/// A slot and the parity of its barriers' phase. Whoever waits for full slots starts with parity 0, whoever
/// waits for empty ones with 1.
template <int kStages>
struct Ring {
  int slot = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++slot == kStages) {
      slot = 0;
      parity ^= 1;
    }
  }
};

}  // namespace seer::cuda
