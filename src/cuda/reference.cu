#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "cuda/check.h"
#include "cuda/reference.h"

namespace seer::cuda {

namespace {

constexpr int kThreads = 128;

template <class T>
__device__ double round_to(double x) {
  return static_cast<double>(static_cast<float>(static_cast<T>(static_cast<float>(x))));
}

__device__ double reduce(double value, double* scratch, bool maximum) {
  __syncthreads();
  scratch[threadIdx.x] = value;
  __syncthreads();
  double total = scratch[0];
  for (int i = 1; i < kThreads; ++i) total = maximum ? fmax(total, scratch[i]) : total + scratch[i];
  return total;
}

/// One query and head a block; a thread takes every 128th key, then one column of the output.
template <class T, bool kRound>
__global__ void prefill_reference_kernel(PrefillAttentionParams p, std::int64_t token_step, double* out,
                                         double* lse) {
  __shared__ double scratch[kThreads];
  __shared__ double probability[kThreads];
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * token_step;
  const int head = blockIdx.y;
  const int kv_head = head / (p.num_heads / p.num_kv_heads);
  int b = 0;
  while (p.cu_seqlens_q[b + 1] <= token) ++b;
  const std::int64_t first_key = p.cu_seqlens_k[b];
  const std::int64_t keys = p.cu_seqlens_k[b + 1] - first_key;
  const std::int64_t q_offset = keys - (p.cu_seqlens_q[b + 1] - p.cu_seqlens_q[b]);
  const std::int64_t position = q_offset + token - p.cu_seqlens_q[b];
  const std::int64_t row = position / 64 - q_offset / 64;
  const std::uint64_t* words =
      p.mask == nullptr
          ? nullptr
          : p.mask + ((static_cast<std::int64_t>(b) * p.mask_heads + head / (p.num_heads / p.mask_heads)) *
                          p.max_rows +
                      row) *
                         p.mask_words;
  const T* q = static_cast<const T*>(p.q) + token * p.q_token_stride + head * p.q_head_stride;

  const auto offset_of = [&](std::int64_t key) {
    if (p.kv.page_table == nullptr) return (first_key + key) * p.kv.token_stride + kv_head * p.kv.head_stride;
    const std::int64_t page = p.kv.page_table[b * p.kv.page_table_stride + key / 64];
    return page * p.kv.page_stride + kv_head * p.kv.head_stride + key % 64 * p.kv.token_stride;
  };
  const auto selected = [&](std::int64_t key) {
    return words == nullptr || (words[key / 4096] >> (key / 64 % 64) & 1) != 0;
  };
  const auto score = [&](std::int64_t key) {
    if (key > position || !selected(key)) return static_cast<double>(-INFINITY);
    const T* k = static_cast<const T*>(p.kv.k) + offset_of(key);
    double sum = 0;
    for (int d = 0; d < p.head_dim; ++d) {
      sum += static_cast<double>(static_cast<float>(q[d])) * static_cast<double>(static_cast<float>(k[d]));
    }
    return (kRound ? round_to<T>(sum) : sum) * p.scale;
  };

  double top = -INFINITY;
  for (std::int64_t key = threadIdx.x; key <= position; key += kThreads) top = fmax(top, score(key));
  top = reduce(top, scratch, true);
  double sum = 0;
  if (top > -INFINITY) {
    for (std::int64_t key = threadIdx.x; key <= position; key += kThreads) sum += exp(score(key) - top);
  }
  sum = reduce(sum, scratch, false);

  double value = 0;
  for (std::int64_t begin = 0; begin <= position && sum > 0; begin += kThreads) {
    const std::int64_t key = begin + threadIdx.x;
    const double weight = key <= position ? exp(score(key) - top) / sum : 0;
    __syncthreads();
    probability[threadIdx.x] = kRound ? round_to<T>(weight) : weight;
    __syncthreads();
    if (threadIdx.x < p.head_dim) {
      for (int i = 0; i < kThreads && begin + i <= position; ++i) {
        if (probability[i] == 0) continue;
        const T* v = static_cast<const T*>(p.kv.v) + offset_of(begin + i);
        value += probability[i] * static_cast<double>(static_cast<float>(v[threadIdx.x]));
      }
    }
  }
  if (threadIdx.x < p.head_dim) {
    out[(token * p.num_heads + head) * p.head_dim + threadIdx.x] = kRound ? round_to<T>(value) : value;
  }
  if (threadIdx.x == 0) lse[head * p.total_q + token] = sum > 0 ? top + log(sum) : -INFINITY;
}

}  // namespace

void attention_prefill_reference(const PrefillAttentionParams& params, std::int64_t token_step,
                                 ReferenceRounding rounding, double* out, double* lse, Stream stream) {
  if (params.total_q == 0) return;
  const bool round = rounding == ReferenceRounding::kStorage;
  const auto kernel =
      params.dtype == DType::kBF16
          ? (round ? prefill_reference_kernel<__nv_bfloat16, true>
                   : prefill_reference_kernel<__nv_bfloat16, false>)
          : (round ? prefill_reference_kernel<__half, true> : prefill_reference_kernel<__half, false>);
  const dim3 grid(static_cast<unsigned>((params.total_q + token_step - 1) / token_step), params.num_heads);
  kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(params, token_step, out, lse);
  check(cudaGetLastError(), "attention_prefill_reference");
}

}  // namespace seer::cuda
