// The decode gate's products: a token's query, and the compressed keys of full blocks.
//
// The query's product reads as many weights as a small model layer, so it is cut into slices of 32 inputs, a
// CTA each; their sums stay apart in the workspace, and whoever reads the query adds them in their order. A
// further CTA a (sequence, KV head) keeps the token's key, and when that fills the block makes the block's
// compressed key, by the same code as a prompt's blocks, hence with the same bits.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/decode_gate.cuh"
#include "cuda/decode_gate_launch.h"
#include "cuda/dispatch.cuh"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

namespace seer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBlock = 64;
constexpr int kPools = 3;

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

/// Channels lane, lane + 32, ... of a head after the model's norm; by a warp.
template <class T, int kHeadDim>
__device__ __forceinline__ void load_head(const T* head, const float* norm, float eps, int lane,
                                          float (&x)[kHeadDim / 32]) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kHeadDim / 32; ++i) {
    x[i] = static_cast<float>(head[i * 32 + lane]);
    squares = fmaf(x[i], x[i], squares);
  }
  if (norm == nullptr) return;
  const float scale = 1.0f / sqrtf(warp_sum(squares) * (1.0f / kHeadDim) + eps);
#pragma unroll
  for (int i = 0; i < kHeadDim / 32; ++i) x[i] *= scale * norm[i * 32 + lane];
}

/// The compressed key of 64 tokens' keys of one head to out [dim].
template <class T, int kHeadDim>
__device__ __forceinline__ void compress(const DecodeGateLayerParams& p, int kv_head, const T* k,
                                         std::int64_t token_stride, std::int64_t position, Weight* out,
                                         Scratch<kHeadDim>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  constexpr int kOfLane = kHeadDim / 32;
  float most[kOfLane], least[kOfLane], sums[kOfLane];
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) most[i] = -INFINITY, least[i] = INFINITY, sums[i] = 0;
#pragma unroll
  for (int t = 0; t < kBlock / kWarps; ++t) {
    float x[kOfLane];
    load_head<T, kHeadDim>(k + (warp * (kBlock / kWarps) + t) * token_stride, p.model_k_norm,
                           p.model_norm_eps, lane, x);
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

/// grid [1 + slices or 1, num_kv_heads, batch]: the first CTA takes the key in, the others multiply the
/// query.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads) token_kernel(DecodeGateTokenParams p, float* query) {
  __shared__ Scratch<kHeadDim> shared;
  ptx::let_next_kernel_start();
  const DecodeGateLayerParams& gate = p.gate;
  const int kv_head = blockIdx.y, b = blockIdx.z;
  if (blockIdx.x == 0) {
    ptx::wait_for_previous_kernel();
    take_key<T, kHeadDim>(p, kv_head, b, shared);
    return;
  }
  const int slice = static_cast<int>(blockIdx.x) - 1, slices = static_cast<int>(gridDim.x) - 1;
  const std::int64_t first = (static_cast<std::int64_t>(kv_head) * slices + slice) * kQuerySlice;
  const Tiling tiling(gate.dim);
  const Weight* const source = static_cast<const Weight*>(gate.q_weight) + first * gate.dim + tiling.column;
  constexpr int kMostRows = 4;  // of a thread: 8 threads above each other or more
  uint4 weights[kMostRows];
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    const int r = tiling.row + i * tiling.rows_on;
    weights[i] = tiling.has_row(r, kQuerySlice)
                     ? __ldg(reinterpret_cast<const uint4*>(source + static_cast<std::int64_t>(r) * gate.dim))
                     : uint4{};
  }
  ptx::wait_for_previous_kernel();
  constexpr int kSlices = kHeadDim / kQuerySlice;  // of one head
  if (threadIdx.x < 32) {
    const int head = kv_head * (slices / kSlices) + slice / kSlices, lane = threadIdx.x;
    float x[kSlices];
    load_head<T, kHeadDim>(static_cast<const T*>(p.qkv) + b * p.qkv_stride + head * kHeadDim,
                           gate.model_q_norm, gate.model_norm_eps, lane, x);
#pragma unroll
    for (int i = 0; i < kSlices; ++i) shared.x[i * kQuerySlice + lane] = x[i];
  }
  __syncthreads();
  const float* const inputs = shared.x + slice % kSlices * kQuerySlice;
  float sum[8] = {};
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    const int r = tiling.row + i * tiling.rows_on;
    if (tiling.has_row(r, kQuerySlice)) add_row(sum, inputs[r], weights[i]);
  }
  const float y = join(sum, tiling, kQuerySlice, gate.dim, shared.joint);
  if (threadIdx.x < gate.dim) {
    const std::int64_t list = static_cast<std::int64_t>(b) * gate.num_kv_heads + kv_head;
    query[(list * slices + slice) * gate.dim + threadIdx.x] = y;
  }
}

/// grid [num_blocks, num_kv_heads].
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads) keys_kernel(DecodeGateKeysParams p) {
  __shared__ Scratch<kHeadDim> shared;
  const int kv_head = blockIdx.y;
  const std::int64_t block = p.first_block + blockIdx.x;
  compress<T, kHeadDim>(
      p.gate, kv_head, static_cast<const T*>(p.k) + blockIdx.x * kBlock * p.token_stride + kv_head * kHeadDim,
      p.token_stride, block * kBlock,
      static_cast<Weight*>(p.keys) + (kv_head * p.capacity + block) * p.gate.dim, shared);
}

}  // namespace

void launch_decode_gate_keys(const DecodeGateKeysParams& p, CUstream_st* stream) {
  const dim3 grid(static_cast<unsigned>(p.num_blocks), p.gate.num_kv_heads);
  dispatch(p.gate.dtype, p.gate.head_dim, [&](auto type, auto dim) {
    keys_kernel<decltype(type), decltype(dim)::value><<<grid, kThreads, 0, stream>>>(p);
  });
  check(cudaGetLastError(), "decode_gate");
}

void launch_decode_gate_token(const DecodeGateTokenParams& p, const DecodeGateScratch& scratch,
                              CUstream_st* stream) {
  const dim3 grid(p.mask != nullptr ? 1 + query_slices(p.gate) : 1, p.gate.num_kv_heads, p.batch);
  dispatch(p.gate.dtype, p.gate.head_dim, [&](auto type, auto dim) {
    launch_early("decode_gate", token_kernel<decltype(type), decltype(dim)::value>, grid, kThreads, 0, stream,
                 p, scratch.query);
  });
}

}  // namespace seer::cuda
