// How one warp writes a row of the pooled target: from the smallest lse - score of every key block (log2
// units, as bits, never below 0) to probabilities that sum to 1.
#pragma once

#include <cstdint>

#include "cuda/ptx.cuh"

namespace seer::cuda {

/// Bits of an infinite gap: no probability.
inline constexpr std::uint32_t kNoGap = 0x7f800000;

/// The smallest gap of two rows of scores whose largest values are given, as bits, over the warp. Below 0
/// there is only rounding: a probability is at most 1.
__device__ __forceinline__ std::uint32_t least_gap(float top0, float top1, float lse0, float lse1,
                                                   float scale_log2) {
  const float gap = fminf(fmaf(top0, -scale_log2, lse0), fmaf(top1, -scale_log2, lse1));
  return __reduce_min_sync(0xffffffffu, __float_as_uint(fmaxf(gap, 0.0f)));
}

struct TargetRow {
  float* out = nullptr;  // [stride]; nullptr: there is none
  int diagonal = 0;      // its last key block
  float sum = 0;         // of this lane's columns

  /// Key block `column`, which is `lane` plus a multiple of 32.
  __device__ __forceinline__ void write(int column, std::uint32_t gap) {
    if (out == nullptr || column > diagonal) return;
    const float largest = ptx::exp2_approx(-__uint_as_float(gap));
    out[column] = largest;
    sum += largest;
  }

  /// Divides the row by its sum; every lane rereads what it wrote itself.
  __device__ __forceinline__ void normalise(std::int64_t stride, int lane) {
    if (out == nullptr) return;
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    const float inverse = 1.0f / sum;
#pragma unroll 8
    for (std::int64_t column = lane; column < stride; column += 32) {
      out[column] = column <= diagonal ? out[column] * inverse : 0.0f;
    }
  }
};

}  // namespace seer::cuda
