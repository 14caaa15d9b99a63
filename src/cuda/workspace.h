// What functions that cut their workspace and their work into parts share. Only in builds with CUDA.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/check.h"

namespace seer::cuda {

/// Bytes of a part of a workspace, so that the next one is aligned.
inline std::int64_t padded(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

/// Of the current device.
inline int multiprocessors(const char* what) {
  int device = 0;
  int processors = 0;
  check(cudaGetDevice(&device), what);
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), what);
  return processors;
}

}  // namespace seer::cuda
