#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/mix.h"
#include "cuda/check.h"
#include "cuda/elementwise.h"
#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"

namespace seer::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__device__ __forceinline__ float to_float(T value) {
  return static_cast<float>(value);
}

/// Over a CTA of kThreads, for every thread, always in the same order.
template <class Warp>
__device__ __forceinline__ float reduce(float value, float neutral, Warp&& of_warp) {
  __shared__ float parts[kThreads / 32];
  value = of_warp(value);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp(threadIdx.x % 32 < kThreads / 32 ? parts[threadIdx.x % 32] : neutral);
  __syncthreads();
  return value;
}

__device__ __forceinline__ float block_sum(float value) {
  return reduce(value, 0.0f, [](float x) { return warp_sum(x); });
}

template <class T>
__global__ void embedding_kernel(const T* __restrict__ table, const std::int32_t* __restrict__ ids,
                                 std::int64_t hidden, float* __restrict__ x) {
  const std::int64_t token = blockIdx.x;
  const T* row = table + static_cast<std::int64_t>(ids[token]) * hidden;
  for (std::int64_t i = threadIdx.x * 8; i < hidden; i += blockDim.x * 8) {
    float values[8];
    widen8<T>(*reinterpret_cast<const uint4*>(row + i), values);
    float4* out = reinterpret_cast<float4*>(x + token * hidden + i);
    out[0] = make_float4(values[0], values[1], values[2], values[3]);
    out[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const float* __restrict__ x, const float* __restrict__ weight, float eps,
                    std::int64_t size, T* __restrict__ out) {
  const float* row = x + blockIdx.x * size;
  float sum = 0;
  for (std::int64_t i = threadIdx.x * 4; i < size; i += kThreads * 4) {
    const float4 v = *reinterpret_cast<const float4*>(row + i);
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float factor = rsqrtf(block_sum(sum) / static_cast<float>(size) + eps);
  for (std::int64_t i = threadIdx.x * 4; i < size; i += kThreads * 4) {
    const float4 v = *reinterpret_cast<const float4*>(row + i);
    const float4 w = *reinterpret_cast<const float4*>(weight + i);
    *reinterpret_cast<uint2*>(out + blockIdx.x * size + i) =
        make_uint2(ptx::pack<T>(v.x * factor * w.x, v.y * factor * w.y),
                   ptx::pack<T>(v.z * factor * w.z, v.w * factor * w.w));
  }
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + __expf(-x)); }

template <class T>
__global__ void silu_multiply_kernel(const T* __restrict__ gate_up, std::int64_t rows, std::int64_t inner,
                                     T* __restrict__ out) {
  const std::int64_t row = blockIdx.y;
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 8;
  if (i >= inner) return;
  for (std::int64_t r = row; r < rows; r += gridDim.y) {
    float gate[8];
    float up[8];
    widen8<T>(*reinterpret_cast<const uint4*>(gate_up + r * 2 * inner + i), gate);
    widen8<T>(*reinterpret_cast<const uint4*>(gate_up + (r * 2 + 1) * inner + i), up);
#pragma unroll
    for (int j = 0; j < 8; ++j) gate[j] = silu(gate[j]) * up[j];
    *reinterpret_cast<uint4*>(out + r * inner + i) = pack8<T>(gate);
  }
}

__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(const float* __restrict__ logits, std::int64_t vocab,
                         const std::int32_t* __restrict__ targets, float* __restrict__ nll) {
  const float* row = logits + blockIdx.x * vocab;
  float largest = -INFINITY;
  for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) largest = fmaxf(largest, row[i]);
  largest = reduce(largest, -INFINITY, [](float x) { return warp_max(x); });
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) sum += expf(row[i] - largest);
  sum = block_sum(sum);
  if (threadIdx.x == 0) nll[blockIdx.x] = logf(sum) + largest - row[targets[blockIdx.x]];
}

template <class From, class To>
__global__ void convert_kernel(const From* __restrict__ in, To* __restrict__ out, std::int64_t count) {
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x)
    out[i] = static_cast<To>(to_float(in[i]));
}

template <class T>
__global__ void fill_uniform_kernel(T* out, std::int64_t count, float range, std::uint64_t seed) {
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const std::uint64_t random = mix(mix(seed) ^ static_cast<std::uint64_t>(i));
    const float uniform = (static_cast<float>(random >> 40) + 0.5f) * 0x1p-24f;
    out[i] = static_cast<T>(range * (2 * uniform - 1));
  }
}

/// A warp computes one column of y for all rows of x; its lanes walk w's row in steps of 16 bytes.
template <class T, class Out, int kRows>
__global__ void __launch_bounds__(kThreads)
    gemv_kernel(const T* __restrict__ x, const T* __restrict__ w, Out* __restrict__ y, std::int64_t n,
                std::int64_t k, const Out* __restrict__ bias, bool add_to_y) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (column >= n) return;
  const int lane = threadIdx.x % 32;
  const T* row = w + column * k;
  float sums[kRows] = {};
  constexpr int kUnroll = 4;  // 16-byte loads of w in flight a lane
  std::int64_t i = lane * 8;
  for (; i + (kUnroll - 1) * 256 < k; i += kUnroll * 256) {
    uint4 packed[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) packed[u] = __ldcs(reinterpret_cast<const uint4*>(row + i + u * 256));
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float a[8];
      widen8<T>(packed[u], a);
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        float b[8];
        widen8<T>(__ldg(reinterpret_cast<const uint4*>(x + m * k + i + u * 256)), b);
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[m] = fmaf(a[j], b[j], sums[m]);
      }
    }
  }
  for (; i < k; i += 256) {
    float a[8];
    widen8<T>(*reinterpret_cast<const uint4*>(row + i), a);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      float b[8];
      widen8<T>(__ldg(reinterpret_cast<const uint4*>(x + m * k + i)), b);
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[m] = fmaf(a[j], b[j], sums[m]);
    }
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    float sum = warp_sum(sums[m]);
    if (lane != 0) continue;
    if (bias != nullptr) sum += to_float(bias[column]);
    if (add_to_y) sum += to_float(y[m * n + column]);
    y[m * n + column] = static_cast<Out>(sum);
  }
}

template <class T, class Out>
void launch_gemv(const GemvParams& p, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((p.n + kThreads / 32 - 1) / (kThreads / 32));
  const auto run = [&](auto kernel) {
    kernel<<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(p.x), static_cast<const T*>(p.w),
                                            static_cast<Out*>(p.y), p.n, p.k, static_cast<const Out*>(p.bias),
                                            p.add_to_y);
  };
  switch (p.m) {
    case 1:
      return run(gemv_kernel<T, Out, 1>);
    case 2:
      return run(gemv_kernel<T, Out, 2>);
    case 3:
      return run(gemv_kernel<T, Out, 3>);
    default:
      return run(gemv_kernel<T, Out, 4>);
  }
}

unsigned blocks_of(std::int64_t count) {
  return static_cast<unsigned>(std::min<std::int64_t>((count + kThreads - 1) / kThreads, 132 * 32));
}

/// Calls run(T{}) for the element type.
template <class Run>
void with_type(const char* what, DType dtype, Run&& run) {
  require(dtype == DType::kBF16 || dtype == DType::kF16, "elementwise: expected the dtype BF16 or F16",
          static_cast<int>(dtype));
  if (dtype == DType::kBF16)
    run(__nv_bfloat16{});
  else
    run(__half{});
  check(cudaGetLastError(), what);
}

}  // namespace

void embedding(const void* table, DType dtype, const std::int32_t* ids, std::int64_t tokens,
               std::int64_t hidden, float* x, Stream stream) {
  if (tokens == 0) return;
  require(hidden % 8 == 0, "embedding: expected a hidden size that is a multiple of 8", hidden);
  with_type("embedding", dtype, [&](auto type) {
    using T = decltype(type);
    embedding_kernel<T><<<static_cast<unsigned>(tokens), 128, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(table), ids, hidden, x);
  });
}

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t size, void* out,
              DType dtype, Stream stream) {
  if (rows == 0) return;
  require(size % 4 == 0, "rms_norm: expected a size that is a multiple of 4", size);
  with_type("rms_norm", dtype, [&](auto type) {
    using T = decltype(type);
    rms_norm_kernel<T><<<static_cast<unsigned>(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        x, weight, eps, size, static_cast<T*>(out));
  });
}

void silu_multiply(const void* gate_up, DType dtype, std::int64_t rows, std::int64_t inner, void* out,
                   Stream stream) {
  if (rows == 0) return;
  require(inner % 8 == 0, "silu_multiply: expected a size that is a multiple of 8", inner);
  const dim3 grid(static_cast<unsigned>((inner / 8 + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min<std::int64_t>(rows, 32768)));
  with_type("silu_multiply", dtype, [&](auto type) {
    using T = decltype(type);
    silu_multiply_kernel<T><<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(gate_up), rows, inner, static_cast<T*>(out));
  });
}

void cross_entropy(const float* logits, std::int64_t rows, std::int64_t vocab, const std::int32_t* targets,
                   float* nll, Stream stream) {
  if (rows == 0) return;
  cross_entropy_kernel<<<static_cast<unsigned>(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      logits, vocab, targets, nll);
  check(cudaGetLastError(), "cross_entropy");
}

void convert(const void* in, DType from, void* out, DType to, std::int64_t count, Stream stream) {
  if (count == 0) return;
  with_type("convert", to, [&](auto type) {
    using To = decltype(type);
    const auto run = [&](auto source) {
      using From = decltype(source);
      convert_kernel<From, To><<<blocks_of(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
          static_cast<const From*>(in), static_cast<To*>(out), count);
    };
    switch (from) {
      case DType::kF32:
        return run(float{});
      case DType::kBF16:
        return run(__nv_bfloat16{});
      case DType::kF16:
        return run(__half{});
      default:
        return require(false, "convert: expected F32, BF16 or F16", static_cast<int>(from));
    }
  });
}

void fill_uniform(void* out, DType dtype, std::int64_t count, float range, std::uint64_t seed,
                  Stream stream) {
  if (count == 0) return;
  with_type("fill_uniform", dtype, [&](auto type) {
    using T = decltype(type);
    fill_uniform_kernel<T><<<blocks_of(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<T*>(out), count, range, seed);
  });
}

void gemv(const GemvParams& p, Stream stream) {
  require(p.m >= 1 && p.m <= kMaxGemvRows, "gemv: expected 1 to 4 rows", p.m);
  require(p.k > 0 && p.k % 8 == 0 && p.n > 0, "gemv: expected n above 0 and k a multiple of 8", p.k);
  require(p.out_dtype == p.dtype || p.out_dtype == DType::kF32, "gemv: expected the dtype of x or F32",
          static_cast<int>(p.out_dtype));
  with_type("gemv", p.dtype, [&](auto type) {
    using T = decltype(type);
    if (p.out_dtype == DType::kF32)
      launch_gemv<T, float>(p, static_cast<cudaStream_t>(stream));
    else
      launch_gemv<T, T>(p, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace seer::cuda
