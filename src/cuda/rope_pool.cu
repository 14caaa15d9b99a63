// One pass over queries and keys: norm, pooling, RoPE, cache. Bound by memory.
//
// A CTA takes 64 tokens and a few heads. A thread owns eight channels of the first half of a head and the
// eight that RoPE pairs them with, for one or two of the tokens, and keeps their cosines and sines in
// registers over the heads; the next head is on its way while this one is worked on. Pooled values meet
// first in a warp, where each exchange halves the channels that a lane still keeps, then in shared memory.
// The three pools share their code: a kernel that starts waits for its instructions too.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "cuda/device_array.h"
#include "cuda/dispatch.cuh"
#include "cuda/gate_launch.h"
#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"
#include "ops/gate.h"

namespace seer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBlock = 64;

template <int kDim>
struct Layout {
  static constexpr int kOctets = kDim / 16;          // threads along a head
  static constexpr int kSlots = kThreads / kOctets;  // tokens side by side
  static constexpr int kTokens = kBlock / kSlots;    // tokens of a thread
  static constexpr int kTokenLanes = 32 / kOctets;   // tokens side by side in a warp
  static constexpr int kKept = 16 / kTokenLanes;     // channels of a lane once a warp's tokens are pooled
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
  return {*reinterpret_cast<const uint4*>(head + octet * 8),
          *reinterpret_cast<const uint4*>(head + kDim / 2 + octet * 8)};
}

template <class T, int kDim>
__device__ __forceinline__ void store_raw(T* head, int octet, const Raw& raw) {
  *reinterpret_cast<uint4*>(head + octet * 8) = raw.low;
  *reinterpret_cast<uint4*>(head + kDim / 2 + octet * 8) = raw.high;
}

/// How a pool joins values: sums, or maxima of the values times `sign` (-1 for minima).
struct Pool {
  bool is_sum;
  float sign;

  /// Of a PoolSet's bit.
  __device__ explicit Pool(int bit) : is_sum(1 << bit == kPoolAvg), sign(1 << bit == kPoolMin ? -1 : 1) {}
  __device__ float neutral() const { return is_sum ? 0 : -INFINITY; }
  __device__ float join(float a, float b) const { return is_sum ? a + b : fmaxf(a, b); }
};

/// Pools x over the lanes of a channel by exchanges with ever closer lanes, each halving what a lane keeps:
/// in the end the first kLast of x. Returns which channel comes first among them, counted as in Channels.
template <int kKept, int kLast>
__device__ __forceinline__ int pool_lanes(float (&x)[16], const Pool& pool) {
  constexpr int kDistance = 2 * kKept;
  const bool upper = (threadIdx.x & kDistance) != 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const float low = x[i], high = x[kKept + i];
    x[i] = pool.join(upper ? high : low, __shfl_xor_sync(0xffffffffu, upper ? low : high, kDistance));
  }
  const int first = upper ? kKept : 0;
  if constexpr (kKept > kLast) return first + pool_lanes<kKept / 2, kLast>(x, pool);
  return first;
}

/// Pools of one head, [place in the set][warp][channel].
template <int kDim>
using Partial = float[3][kWarps][kDim];

/// This warp's pool of one head.
template <int kDim>
__device__ __forceinline__ void pool_warp(const Channels (&x)[Layout<kDim>::kTokens],
                                          const bool (&valid)[Layout<kDim>::kTokens], const Pool& pool,
                                          float (&partial)[kWarps][kDim]) {
  constexpr int kLast = Layout<kDim>::kKept;
  float pooled[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    pooled[i] = valid[0] ? x[0].value[i] * pool.sign : pool.neutral();
    if constexpr (Layout<kDim>::kTokens == 2)
      pooled[i] = pool.join(pooled[i], valid[1] ? x[1].value[i] * pool.sign : pool.neutral());
  }
  const int first = pool_lanes<8, kLast>(pooled, pool);
  float* out = &partial[threadIdx.x / 32]
                       [(first < 8 ? 0 : kDim / 2) + threadIdx.x % Layout<kDim>::kOctets * 8 + first % 8];
#pragma unroll
  for (int i = 0; i < kLast; ++i) out[i] = pooled[i];
}

/// Joins the warps' pools of a channel, in their order.
template <int kDim>
__device__ __forceinline__ float join_warps(const float (&partial)[kWarps][kDim], const Pool& pool,
                                            int channel, int tokens) {
  float value = partial[0][channel];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) value = pool.join(value, partial[warp][channel]);
  return pool.is_sum ? value * (1.0f / static_cast<float>(tokens)) : value * pool.sign;
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

template <class T, int kDim, bool kNorm>
__global__ void __launch_bounds__(kThreads, 2) rope_pool_kernel(RopePoolParams p, int heads_per_cta) {
  using L = Layout<kDim>;
  __shared__ Partial<kDim> partial[2];
  const std::int64_t block = blockIdx.y;
  const int all_heads = p.num_heads + 2 * p.num_kv_heads;
  const int first_head = static_cast<int>(blockIdx.x) * heads_per_cta;
  const int last_head = min(first_head + heads_per_cta, all_heads);
  const int octet = threadIdx.x % L::kOctets;
  const int slot = threadIdx.x / L::kOctets;
  const int tokens = static_cast<int>(min(std::int64_t{kBlock}, p.num_tokens - block * kBlock));
  const std::int64_t page = p.cache.page_table[p.first_position / kBlock + block];
  ptx::let_next_kernel_start();

  bool valid[L::kTokens];
  float cos[L::kTokens][8], sin[L::kTokens][8];
  const T* source[L::kTokens];
#pragma unroll
  for (int t = 0; t < L::kTokens; ++t) {
    const int in_block = slot + t * L::kSlots;
    valid[t] = in_block < tokens;
    const std::int64_t token = block * kBlock + (valid[t] ? in_block : 0);
    source[t] = static_cast<const T*>(p.qkv) + token * p.qkv_stride;
    const std::int64_t row = (p.first_position + token) * (kDim / 2) + octet * 8;
    load_floats(cos[t], p.cos + row);
    load_floats(sin[t], p.sin + row);
  }

  // Of the pooled query's channel that this thread joins; the sine with the sign of its half.
  float block_cos = 1, block_sin = 0;
  if (p.block_cos != nullptr && threadIdx.x < kDim) {
    const std::int64_t at = block * (kDim / 2) + threadIdx.x % (kDim / 2);
    block_cos = p.block_cos[at];
    block_sin = threadIdx.x < kDim / 2 ? -p.block_sin[at] : p.block_sin[at];
  }

  Raw next[L::kTokens];
#pragma unroll
  for (int t = 0; t < L::kTokens; ++t) next[t] = load_raw<T, kDim>(source[t] + first_head * kDim, octet);
  for (int head = first_head; head < last_head; ++head) {
    Raw raw[L::kTokens];
#pragma unroll
    for (int t = 0; t < L::kTokens; ++t) {
      raw[t] = next[t];
      if (head + 1 < last_head) next[t] = load_raw<T, kDim>(source[t] + (head + 1) * kDim, octet);
    }
    const bool is_query = head < p.num_heads;
    const bool is_value = head >= p.num_heads + p.num_kv_heads;
    Channels x[L::kTokens];
    if (!is_value) {
      const float* norm = is_query ? p.q_norm : p.k_norm;
#pragma unroll
      for (int t = 0; t < L::kTokens; ++t) {
        widen8<T>(raw[t].low, x[t].value);
        widen8<T>(raw[t].high, x[t].value + 8);
        if (kNorm && norm != nullptr) normalise<kDim>(x[t], norm, p.norm_eps, octet);
        raw[t] = rotate<T>(x[t], cos[t], sin[t]);
      }
    }
#pragma unroll
    for (int t = 0; t < L::kTokens; ++t) {
      const int in_block = slot + t * L::kSlots;
      if (valid[t]) {
        store_raw<T, kDim>(destination<T>(p, head, block * kBlock + in_block, page, in_block), octet, raw[t]);
      }
    }
    float* const out = is_query ? p.q_pooled : p.k_pooled;
    auto* const rounded = static_cast<__nv_bfloat16*>(is_query ? p.q_gate : p.k_gate);
    if (is_value || (out == nullptr && rounded == nullptr)) continue;
    const unsigned pools = is_query ? p.q_pools : p.k_pools;
    const std::int64_t row =
        is_query ? block * p.num_heads + head : block * p.num_kv_heads + head - p.num_heads;
    const std::int64_t first = row * (__popc(pools) * kDim);
    Partial<kDim>& joint = partial[head % 2];
    int places = 0;
#pragma unroll 1
    for (int bit = 0; bit < 3; ++bit)
      if ((pools >> bit & 1) != 0) pool_warp<kDim>(x, valid, Pool(bit), joint[places++]);
    // One barrier a head: the other buffer's readers have passed it before anyone writes there again.
    __syncthreads();
    places = 0;
#pragma unroll 1
    for (int bit = 0; bit < 3; ++bit) {
      if ((pools >> bit & 1) == 0) continue;
      // Neighbouring pools are joined by different threads.
      const int channel = (threadIdx.x + places * kDim) % kThreads;
      if (channel < kDim) {
        const std::int64_t place = first + places * kDim + channel;
        float value = join_warps<kDim>(joint[places], Pool(bit), channel, tokens);
        if (out != nullptr) out[place] = value;
        if (is_query && p.block_cos != nullptr) {
          const float paired = join_warps<kDim>(joint[places], Pool(bit), channel ^ (kDim / 2), tokens);
          value = value * block_cos + paired * block_sin;
        }
        if (rounded != nullptr) rounded[place] = __float2bfloat16_rn(value);
      }
      ++places;
    }
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
    widen8<T>(raw.low, x.value);
    widen8<T>(raw.high, x.value + 8);
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
  constexpr int kHeadsPerCta = 6;
  const dim3 grid((all_heads + kHeadsPerCta - 1) / kHeadsPerCta,
                  static_cast<unsigned>((p.num_tokens + kBlock - 1) / kBlock));
  const bool norm = p.q_norm != nullptr || p.k_norm != nullptr;
  dispatch(p.dtype, p.head_dim, [&](auto type, auto dim) {
    const auto kernel = norm ? rope_pool_kernel<decltype(type), decltype(dim)::value, true>
                             : rope_pool_kernel<decltype(type), decltype(dim)::value, false>;
    kernel<<<grid, kThreads, 0, stream>>>(p, kHeadsPerCta);
  });
  check(cudaGetLastError(), "rope_pool");
}

void launch_rope_store(const RopeStoreParams& p, CUstream_st* stream) {
  const int threads = (p.num_heads + 2 * p.num_kv_heads) * (p.head_dim / 16);
  const dim3 grid((threads + kThreads - 1) / kThreads, p.batch);
  dispatch(p.dtype, p.head_dim, [&](auto type, auto dim) {
    rope_store_kernel<decltype(type), decltype(dim)::value><<<grid, kThreads, 0, stream>>>(p);
  });
  check(cudaGetLastError(), "rope_store");
}

}  // namespace seer::cuda
