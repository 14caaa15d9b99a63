// What the decode gate's kernels share: a projection by a CTA, and the compressed key of a block.
//
// A prompt's blocks and a decoded token's block go through the same code, hence to the same bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/decode_gate.h"
#include "cuda/lanes.cuh"
#include "ops/decode_gate.h"

namespace seer::cuda::decode_gate_cta {

inline constexpr int kThreads = 256;  // of every CTA
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kBlock = 64;

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

inline constexpr int kPools = 3;

using Weight = __nv_bfloat16;

/// Shared memory of a CTA.
template <int kHeadDim>
struct Scratch {
  float pooled[kWarps][kPools][kHeadDim];  // by warp
  float x[kPools * kHeadDim];              // the product's input
  alignas(16) float joint[8 * kThreads];   // [threads above each other][dim]
  float y[kThreads];                       // the product
};

/// How threads share a matrix [rows, dim] of weights: a thread reads 16 bytes of every `rows_on`-th row.
struct Tiling {
  int column, row, rows_on;

  __device__ explicit Tiling(int dim)
      : column(static_cast<int>(threadIdx.x) % (dim / 8) * 8),
        row(static_cast<int>(threadIdx.x) / (dim / 8)),
        rows_on(kThreads / (dim / 8)) {}
  /// The last threads have no row where dim / 8 does not divide the CTA.
  __device__ bool has_row(int r, int rows) const { return row < rows_on && r < rows; }
};

__device__ __forceinline__ void add_row(float (&sum)[8], float x, const uint4& weights) {
  float w[8];
  widen8<Weight>(weights, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum[i] = fmaf(x, w[i], sum[i]);
}

/// Adds the threads' sums of a product of `rows` rows in their order: element threadIdx.x, for those below
/// dim.
__device__ __forceinline__ float join(const float (&sum)[8], const Tiling& tiling, int rows, int dim,
                                      float* joint) {
  if (tiling.row < tiling.rows_on) {
    float4* place = reinterpret_cast<float4*>(joint + tiling.row * dim + tiling.column);
    place[0] = {sum[0], sum[1], sum[2], sum[3]};
    place[1] = {sum[4], sum[5], sum[6], sum[7]};
  }
  __syncthreads();
  float total = 0;
  if (threadIdx.x < dim) {
    const int parts = min(tiling.rows_on, rows);
#pragma unroll 8
    for (int i = 0; i < parts; ++i) total += joint[i * dim + threadIdx.x];
  }
  return total;
}

/// The model's norm of a head, by a warp; a lane has the channels lane, lane + 32, ...
template <int kHeadDim>
struct HeadNorm {
  static constexpr int kOfLane = kHeadDim / 32;
  bool has_norm;
  float eps;
  float weight[kOfLane] = {};

  __device__ __forceinline__ HeadNorm(const float* weights, float eps, int lane)
      : has_norm(weights != nullptr), eps(eps) {
    if (!has_norm) return;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) weight[i] = weights[i * 32 + lane];
  }

  template <class T>
  __device__ __forceinline__ void load(const T* head, int lane, float (&x)[kOfLane]) const {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      x[i] = static_cast<float>(head[i * 32 + lane]);
      squares = fmaf(x[i], x[i], squares);
    }
    if (!has_norm) return;
    const float scale = 1.0f / sqrtf(warp_sum(squares) * (1.0f / kHeadDim) + eps);
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) x[i] *= scale * weight[i];
  }
};

/// The compressed key of 64 tokens' keys of one head to out [dim].
template <class T, int kHeadDim>
__device__ __forceinline__ void compress(const DecodeGateLayerParams& p, int kv_head, const T* k,
                                         std::int64_t token_stride, std::int64_t position, Weight* out,
                                         Scratch<kHeadDim>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  constexpr int kOfLane = kHeadDim / 32;
  const HeadNorm<kHeadDim> norm(p.model_k_norm, p.model_norm_eps, lane);
  float most[kOfLane], least[kOfLane], sums[kOfLane];
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) most[i] = -INFINITY, least[i] = INFINITY, sums[i] = 0;
#pragma unroll
  for (int t = 0; t < kBlock / kWarps; ++t) {
    float x[kOfLane];
    norm.load(k + (warp * (kBlock / kWarps) + t) * token_stride, lane, x);
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      most[i] = fmaxf(most[i], x[i]);
      least[i] = fminf(least[i], x[i]);
      sums[i] += x[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    shared.pooled[warp][0][i * 32 + lane] = most[i];
    shared.pooled[warp][1][i * 32 + lane] = least[i];
    shared.pooled[warp][2][i * 32 + lane] = sums[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kPools * kHeadDim; i += kThreads) {
    const int pool = i / kHeadDim, channel = i % kHeadDim;
    if ((p.k_pools >> pool & 1) == 0) continue;
    float value = shared.pooled[0][pool][channel];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float other = shared.pooled[w][pool][channel];
      value = pool == 0 ? fmaxf(value, other) : pool == 1 ? fminf(value, other) : value + other;
    }
    const int place = __popc(p.k_pools & ((1u << pool) - 1));
    shared.x[place * kHeadDim + channel] = pool == 2 ? value * (1.0f / kBlock) : value;
  }
  __syncthreads();

  const int rows = __popc(p.k_pools) * kHeadDim;
  const Tiling tiling(p.dim);
  const int channel = min(static_cast<int>(threadIdx.x), p.dim / 2 - 1);
  const std::int64_t angle = position * (p.dim / 2);
  const Rotation rotation(p.k_norm, p.cos + angle, p.sin + angle, p.dim, channel);
  const Weight* weights = static_cast<const Weight*>(p.k_weight) +
                          static_cast<std::int64_t>(kv_head) * rows * p.dim + tiling.column;
  float sum[8] = {};
#pragma unroll 8
  for (int r = tiling.row; tiling.has_row(r, rows); r += tiling.rows_on)
    add_row(sum, shared.x[r], __ldg(reinterpret_cast<const uint4*>(weights + r * p.dim)));
  const float y = join(sum, tiling, rows, p.dim, shared.joint);
  if (threadIdx.x < p.dim) shared.y[threadIdx.x] = y;
  __syncthreads();
  const float2 pair = norm_and_rotate(shared.y, p.dim, p.k_norm != nullptr, rotation, channel, lane);
  if (threadIdx.x >= p.dim / 2) return;
  out[channel] = static_cast<Weight>(pair.x);
  out[channel + p.dim / 2] = static_cast<Weight>(pair.y);
}

/// Keeps the token's key; compresses the block that it fills.
template <class T, int kHeadDim>
__device__ __forceinline__ void take_key(const DecodeGateTokenParams& p, int kv_head, int b,
                                         Scratch<kHeadDim>& shared) {
  const DecodeGateLayerParams& gate = p.gate;
  const DecodeGateSequence sequence = p.sequences[b];
  const std::int64_t position = p.positions[b];
  const int slot = static_cast<int>(position % kBlock);
  const std::int64_t stride = static_cast<std::int64_t>(gate.num_kv_heads) * kHeadDim;
  T* const open = static_cast<T*>(sequence.open) + p.layer * kBlock * stride + kv_head * kHeadDim;
  const T* const k = static_cast<const T*>(p.qkv) + b * p.qkv_stride + (gate.num_heads + kv_head) * kHeadDim;
  if (threadIdx.x < kHeadDim) open[slot * stride + threadIdx.x] = k[threadIdx.x];
  if (slot != kBlock - 1) return;
  __syncthreads();
  const std::int64_t list = static_cast<std::int64_t>(p.layer) * gate.num_kv_heads + kv_head;
  compress<T, kHeadDim>(
      gate, kv_head, open, stride, p.rotate_at_last ? position : position - slot,
      static_cast<Weight*>(sequence.keys) + (list * sequence.capacity + position / kBlock) * gate.dim,
      shared);
}

}  // namespace seer::cuda::decode_gate_cta
