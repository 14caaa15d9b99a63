// What kernels do with the values of a warp and with 16-bit values in registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/ptx.cuh"

namespace seer::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

/// For every lane, always in the same order.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

/// u[i] of lane t of a quad becomes u[t] of lane i.
__device__ __forceinline__ void transpose_quad(std::uint32_t (&u)[4], int lane) {
  const bool odd = lane % 2 != 0;
  const bool upper = lane % 4 >= 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = __shfl_xor_sync(kAllLanes, odd ? u[i] : u[i + 1], 1);
    (odd ? u[i] : u[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t got = __shfl_xor_sync(kAllLanes, upper ? u[i] : u[i + 2], 2);
    (upper ? u[i] : u[i + 2]) = got;
  }
}

/// Eight values of T (bf16 or fp16) from 16 bytes.
template <class T>
__device__ __forceinline__ void widen8(const uint4& packed, float* values) {
  const std::uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, __half>) {
      const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
      values[2 * i] = pair.x;
      values[2 * i + 1] = pair.y;
    } else {
      values[2 * i] = __uint_as_float(words[i] << 16);
      values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
}

/// Rounds eight values to 16 bytes of T.
template <class T>
__device__ __forceinline__ uint4 pack8(const float* values) {
  return make_uint4(ptx::pack<T>(values[0], values[1]), ptx::pack<T>(values[2], values[3]),
                    ptx::pack<T>(values[4], values[5]), ptx::pack<T>(values[6], values[7]));
}

}  // namespace seer::cuda
