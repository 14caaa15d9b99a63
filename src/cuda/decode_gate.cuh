// What the decode gate's kernels share: the end of a projection, and launches that begin before the kernel
// ahead of them ends.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/check.h"
#include "cuda/lanes.cuh"
#include "ops/decode_gate.h"

namespace seer::cuda {

/// What one thread needs to finish channels c and c + dim / 2 of a projection. Loaded ahead of their use.
struct Rotation {
  float cos, sin;
  float norm_low = 1, norm_high = 1;

  /// norm [dim], nullptr: none; cos, sin [dim / 2] of the position.
  __device__ Rotation(const float* norm, const float* cos_row, const float* sin_row, int dim, int channel)
      : cos(cos_row[channel]), sin(sin_row[channel]) {
    if (norm == nullptr) return;
    norm_low = norm[channel];
    norm_high = norm[channel + dim / 2];
  }
};

/// Channels `channel` and `channel` + dim / 2 of RoPE(RMSNorm(y)), y [dim] in shared memory; by whole warps.
__device__ __forceinline__ float2 norm_and_rotate(const float* y, int dim, bool has_norm,
                                                  const Rotation& rotation, int channel, int lane) {
  float scale = 1;
  if (has_norm) {
    float squares = 0;
    for (int d = lane; d < dim; d += 32) squares = fmaf(y[d], y[d], squares);
    scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(dim) + kDecodeGateEps);
  }
  const float low = y[channel] * scale * rotation.norm_low;
  const float high = y[channel + dim / 2] * scale * rotation.norm_high;
  return {low * rotation.cos - high * rotation.sin, high * rotation.cos + low * rotation.sin};
}

}  // namespace seer::cuda
