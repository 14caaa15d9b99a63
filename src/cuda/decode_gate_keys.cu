// The decode gate's compressed keys where no query is asked for: of a prompt's blocks, and of tokens in
// layers that choose no blocks.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/check.h"
#include "cuda/decode_gate.cuh"
#include "cuda/decode_gate_launch.h"
#include "cuda/dispatch.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

namespace seer::cuda {
namespace {

using namespace decode_gate_cta;

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

/// grid [num_kv_heads, batch].
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads) take_key_kernel(DecodeGateTokenParams p) {
  __shared__ Scratch<kHeadDim> shared;
  ptx::let_next_kernel_start();
  ptx::wait_for_previous_kernel();
  take_key<T, kHeadDim>(p, blockIdx.x, blockIdx.y, shared);
}

}  // namespace

void launch_decode_gate_keys(const DecodeGateKeysParams& p, CUstream_st* stream) {
  const dim3 grid(static_cast<unsigned>(p.num_blocks), p.gate.num_kv_heads);
  dispatch(p.gate.dtype, p.gate.head_dim, [&](auto type, auto dim) {
    keys_kernel<decltype(type), decltype(dim)::value><<<grid, kThreads, 0, stream>>>(p);
  });
  check(cudaGetLastError(), "decode_gate");
}

void launch_decode_gate_take_keys(const DecodeGateTokenParams& p, CUstream_st* stream) {
  const dim3 grid(p.gate.num_kv_heads, p.batch);
  dispatch(p.gate.dtype, p.gate.head_dim, [&](auto type, auto dim) {
    launch_early("decode_gate", take_key_kernel<decltype(type), decltype(dim)::value>, grid, kThreads, 0,
                 stream, p);
  });
}

}  // namespace seer::cuda
