// One pass over queries and keys: norm, pooling, RoPE, cache. Bound by memory.
//
// A warp takes 64 tokens of one head, four (or eight) at a time. A lane owns eight channels of the first half
// of a head and the eight that RoPE pairs them with, and pools its tokens in registers; in the end the lanes
// of a channel meet, each exchange halving the channels that a lane still keeps. The warps of a CTA take
// different heads of the same tokens, so that cosines and sines come from L1; the heads pass by it.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "cuda/device_array.h"
#include "cuda/gate_launch.h"
#include "cuda/ptx.cuh"
#include "ops/gate.h"

namespace seer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBlock = 64;

template <int kDim>
struct Layout {
  static constexpr int kOctets = kDim / 16;     // lanes along a head
  static constexpr int kTokens = 32 / kOctets;  // of a warp, side by side
  static constexpr int kSteps = kBlock / kTokens;
  static constexpr int kKept = 16 / kTokens;  // channels of a lane once the lanes are pooled
};

/// Eight channels and the eight they are paired with, as stored.
struct Raw {
  uint4 low, high;
};

/// The same widened: value[i] is paired with value[8 + i].
struct Channels {
  float value[16];
};

template <class T>
__device__ __forceinline__ void widen(const uint4& packed, float* out) {
  const std::uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, __half>) {
      const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    } else {
      out[2 * i] = __uint_as_float(words[i] << 16);
      out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
}

template <class T>
__device__ __forceinline__ uint4 narrow(const float* x) {
  return {ptx::pack<T>(x[0], x[1]), ptx::pack<T>(x[2], x[3]), ptx::pack<T>(x[4], x[5]),
          ptx::pack<T>(x[6], x[7])};
}

__device__ __forceinline__ void load_floats(float (&out)[8], const float* source) {
  const float4 a = *reinterpret_cast<const float4*>(source);
  const float4 b = *reinterpret_cast<const float4*>(source + 4);
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

/// RMSNorm of a head; its channels are spread over kDim / 16 neighbouring lanes.
template <int kDim>
__device__ __forceinline__ void normalise(Channels& x, const float* weight, float eps, int octet) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) sum = fmaf(x.value[i], x.value[i], sum);
#pragma unroll
  for (int step = 1; step < kDim / 16; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  const float scale = 1.0f / sqrtf(sum * (1.0f / kDim) + eps);
  float low[8], high[8];
  load_floats(low, weight + octet * 8);
  load_floats(high, weight + kDim / 2 + octet * 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x.value[i] *= scale * low[i];
    x.value[8 + i] *= scale * high[i];
  }
}

template <class T>
__device__ __forceinline__ Raw rotate(const Channels& x, const float (&cos)[8], const float (&sin)[8]) {
  float low[8], high[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    low[i] = x.value[i] * cos[i] - x.value[8 + i] * sin[i];
    high[i] = x.value[8 + i] * cos[i] + x.value[i] * sin[i];
  }
  return {narrow<T>(low), narrow<T>(high)};
}

template <class T, int kDim>
__device__ __forceinline__ Raw load_raw(const T* head, int octet) {
  return {__ldcs(reinterpret_cast<const uint4*>(head + octet * 8)),
          __ldcs(reinterpret_cast<const uint4*>(head + kDim / 2 + octet * 8))};
}

template <class T, int kDim>
__device__ __forceinline__ void store_raw(T* head, int octet, const Raw& raw) {
  *reinterpret_cast<uint4*>(head + octet * 8) = raw.low;
  *reinterpret_cast<uint4*>(head + kDim / 2 + octet * 8) = raw.high;
}

/// Pools x over the lanes of a channel by exchanges with ever closer lanes, each halving what a lane keeps:
/// in the end the first kLast of x. Returns which channel comes first among them, counted as in Channels.
template <int kKept, int kLast, class Join>
__device__ __forceinline__ int pool_lanes(float (&x)[16], const Join& join) {
  constexpr int kDistance = 2 * kKept;
  const bool upper = (threadIdx.x & kDistance) != 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const float low = x[i], high = x[kKept + i];
    x[i] = join(upper ? high : low, __shfl_xor_sync(0xffffffffu, upper ? low : high, kDistance));
  }
  const int first = upper ? kKept : 0;
  if constexpr (kKept > kLast) return first + pool_lanes<kKept / 2, kLast>(x, join);
  return first;
}

/// Pools x over the lanes of a channel and writes the result to out [kDim].
template <int kDim, class Join>
__device__ __forceinline__ void write_pool(float (&x)[16], float scale, float* out, const Join& join) {
  constexpr int kLast = Layout<kDim>::kKept;
  const int first = pool_lanes<8, kLast>(x, join);
  out += (first < 8 ? 0 : kDim / 2) + threadIdx.x % Layout<kDim>::kOctets * 8 + first % 8;
#pragma unroll
  for (int i = 0; i < kLast; ++i) out[i] = x[i] * scale;
}

/// Where a head's result goes: queries to q, keys and values to the cache.
template <class T, class Params>
__device__ __forceinline__ T* destination(const Params& p, int head, std::int64_t token, std::int64_t page,
                                          int slot) {
  if (head < p.num_heads) return static_cast<T*>(p.q) + token * p.q_stride + head * p.head_dim;
  const bool is_key = head < p.num_heads + p.num_kv_heads;
  const int kv_head = head - p.num_heads - (is_key ? 0 : p.num_kv_heads);
  return static_cast<T*>(is_key ? p.cache.k : p.cache.v) + page * p.cache.page_stride +
         kv_head * p.cache.head_stride + slot * p.cache.token_stride;
}

/// One head of one block of tokens by one warp. kExtremes: room for maxima and minima.
template <class T, int kDim, bool kExtremes>
__device__ __forceinline__ void rope_head(const RopePoolParams& p, std::int64_t block, int head, int heads,
                                          const float* norm, unsigned pools, float* out) {
  using L = Layout<kDim>;
  const int lane = threadIdx.x % 32, octet = lane % L::kOctets;
  const int tokens = static_cast<int>(min(std::int64_t{kBlock}, p.num_tokens - block * kBlock));
  const std::int64_t page = p.cache.page_table[p.first_position / kBlock + block];
  float most[16], least[16], sum[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) most[i] = -INFINITY, least[i] = INFINITY, sum[i] = 0;
#pragma unroll
  for (int step = 0; step < L::kSteps; ++step) {
    const int in_block = step * L::kTokens + lane / L::kOctets;
    const bool valid = in_block < tokens;
    const std::int64_t token = block * kBlock + (valid ? in_block : 0);
    const Raw raw =
        load_raw<T, kDim>(static_cast<const T*>(p.qkv) + token * p.qkv_stride + head * kDim, octet);
    const std::int64_t row = (p.first_position + token) * (kDim / 2) + octet * 8;
    float cos[8], sin[8];
    load_floats(cos, p.cos + row);
    load_floats(sin, p.sin + row);
    Channels x;
    widen<T>(raw.low, x.value);
    widen<T>(raw.high, x.value + 8);
    if (norm != nullptr) normalise<kDim>(x, norm, p.norm_eps, octet);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (kExtremes) most[i] = valid ? fmaxf(most[i], x.value[i]) : most[i];
      if (kExtremes) least[i] = valid ? fminf(least[i], x.value[i]) : least[i];
      sum[i] += valid ? x.value[i] : 0;
    }
    if (valid)
      store_raw<T, kDim>(destination<T>(p, head, token, page, in_block), octet, rotate<T>(x, cos, sin));
  }
  if (pools == 0) return;
  out += (block * heads + head) * (__popc(pools) * kDim);
  if (kExtremes && (pools & kPoolMax) != 0) {
    write_pool<kDim>(most, 1, out, [](float a, float b) { return fmaxf(a, b); });
    out += kDim;
  }
  if (kExtremes && (pools & kPoolMin) != 0) {
    write_pool<kDim>(least, 1, out, [](float a, float b) { return fminf(a, b); });
    out += kDim;
  }
  if ((pools & kPoolAvg) != 0)
    write_pool<kDim>(sum, 1.0f / static_cast<float>(tokens), out, [](float a, float b) { return a + b; });
}

/// Values of one head and block of tokens to the cache, by one warp.
template <class T, int kDim>
__device__ __forceinline__ void copy_values(const RopePoolParams& p, std::int64_t block, int head) {
  using L = Layout<kDim>;
  const int lane = threadIdx.x % 32, octet = lane % L::kOctets;
  const std::int64_t page = p.cache.page_table[p.first_position / kBlock + block];
#pragma unroll 8
  for (int step = 0; step < L::kSteps; ++step) {
    const int in_block = step * L::kTokens + lane / L::kOctets;
    const std::int64_t token = block * kBlock + in_block;
    if (token >= p.num_tokens) continue;
    const T* source = static_cast<const T*>(p.qkv) + token * p.qkv_stride + head * kDim;
    store_raw<T, kDim>(destination<T>(p, head, token, page, in_block), octet,
                       load_raw<T, kDim>(source, octet));
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads, 2) rope_pool_kernel(RopePoolParams p) {
  const int head = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const std::int64_t block = blockIdx.y;
  if (head >= p.num_heads + 2 * p.num_kv_heads) return;
  if (head >= p.num_heads + p.num_kv_heads) {
    copy_values<T, kDim>(p, block, head);
    return;
  }
  const bool is_query = head < p.num_heads;
  const float* norm = is_query ? p.q_norm : p.k_norm;
  float* const pooled = is_query ? p.q_pooled : p.k_pooled;
  const unsigned pools = pooled == nullptr ? 0 : is_query ? p.q_pools : p.k_pools;
  // Pooled keys lie by key head.
  float* const out = is_query || pooled == nullptr ? pooled : pooled - p.num_heads * (__popc(pools) * kDim);
  const int heads = is_query ? p.num_heads : p.num_kv_heads;
  if ((pools & (kPoolMax | kPoolMin)) != 0) {
    rope_head<T, kDim, true>(p, block, head, heads, norm, pools, out);
  } else {
    rope_head<T, kDim, false>(p, block, head, heads, norm, pools, out);
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) rope_store_kernel(RopeStoreParams p) {
  const int thread = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x;
  const int octet = thread % Layout<kDim>::kOctets;
  const int all_heads = p.num_heads + 2 * p.num_kv_heads;
  const int head = min(thread / Layout<kDim>::kOctets, all_heads - 1);  // whole warps take part in the norm
  const bool valid = thread / Layout<kDim>::kOctets < all_heads;
  const std::int64_t b = blockIdx.y;
  const std::int64_t position = p.positions[b];
  const std::int64_t page = p.cache.page_table[b * p.cache.page_table_stride + position / kBlock];
  Raw raw = load_raw<T, kDim>(static_cast<const T*>(p.qkv) + b * p.qkv_stride + head * kDim, octet);
  if (head < p.num_heads + p.num_kv_heads) {
    Channels x;
    widen<T>(raw.low, x.value);
    widen<T>(raw.high, x.value + 8);
    const float* norm = head < p.num_heads ? p.q_norm : p.k_norm;
    float cos[8], sin[8];
    load_floats(cos, p.cos + position * (kDim / 2) + octet * 8);
    load_floats(sin, p.sin + position * (kDim / 2) + octet * 8);
    if (norm != nullptr) normalise<kDim>(x, norm, p.norm_eps, octet);
    raw = rotate<T>(x, cos, sin);
  }
  if (valid) store_raw<T, kDim>(destination<T>(p, head, b, page, position % kBlock), octet, raw);
}

__global__ void rope_table_kernel(const double* inv_freq, int half, double attention_factor,
                                  std::int64_t first, std::int64_t step, std::int64_t size, float* cos,
                                  float* sin) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  const double angle = static_cast<double>(first + i / half * step) * inv_freq[i % half];
  double s, c;
  sincospi(angle * (1 / 3.14159265358979323846), &s, &c);  // no slow path for large angles, unlike sincos
  cos[i] = static_cast<float>(c * attention_factor);
  sin[i] = static_cast<float>(s * attention_factor);
}

/// Calls run(T{}, integral_constant of the head dimension).
template <class Params, class Run>
void dispatch(const Params& p, const Run& run) {
  const auto with_type = [&](auto type) {
    if (p.head_dim == 128) {
      run(type, std::integral_constant<int, 128>{});
    } else {
      run(type, std::integral_constant<int, 64>{});
    }
  };
  if (p.dtype == DType::kBF16) {
    with_type(__nv_bfloat16{});
  } else {
    with_type(__half{});
  }
}

}  // namespace

void launch_rope_table(const double* inv_freq, int dim, double attention_factor, std::int64_t first,
                       std::int64_t step, std::int64_t count, float* cos, float* sin, CUstream_st* stream) {
  const std::int64_t size = count * (dim / 2);
  rope_table_kernel<<<static_cast<unsigned>((size + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      inv_freq, dim / 2, attention_factor, first, step, size, cos, sin);
  check(cudaGetLastError(), "rope_table");
}

void launch_rope_pool(const RopePoolParams& p, CUstream_st* stream) {
  const int all_heads = p.num_heads + 2 * p.num_kv_heads;
  const dim3 grid((all_heads + kWarps - 1) / kWarps,
                  static_cast<unsigned>((p.num_tokens + kBlock - 1) / kBlock));
  dispatch(p, [&](auto type, auto dim) {
    rope_pool_kernel<decltype(type), decltype(dim)::value><<<grid, kThreads, 0, stream>>>(p);
  });
  check(cudaGetLastError(), "rope_pool");
}

void launch_rope_store(const RopeStoreParams& p, CUstream_st* stream) {
  const int threads = (p.num_heads + 2 * p.num_kv_heads) * (p.head_dim / 16);
  const dim3 grid((threads + kThreads - 1) / kThreads, p.batch);
  dispatch(p, [&](auto type, auto dim) {
    rope_store_kernel<decltype(type), decltype(dim)::value><<<grid, kThreads, 0, stream>>>(p);
  });
  check(cudaGetLastError(), "rope_store");
}

}  // namespace seer::cuda
