// What gates learn from: the attention map of a dense layer, pooled over 64x64 blocks.
//
// Source: SeerAttention, arXiv 2410.13276, section 4 (its kernel keeps row maxima in bf16; float32 here).
// Schedule and numbers: docs/kernels/hopper_distill.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "cuda/attention.h"

namespace seer::cuda {

/// Queries of one sequence, or a chunk of it, with its keys so far. Every pointer is device memory; strides
/// are in elements.
struct PooledTargetParams {
  const void* q = nullptr;  // element (t, h, d) at q[t * q_token_stride + h * q_head_stride + d], after RoPE
  std::int64_t q_token_stride = 0;
  std::int64_t q_head_stride = 0;
  KeysValues kv;               // paged, page_table of this one sequence; only k is read
  const float* lse = nullptr;  // [num_heads, num_tokens] of the dense attention, from attention_prefill
  DType dtype = DType::kBF16;  // of q and k: kBF16 or kF16
  std::int64_t num_tokens = 0;
  std::int64_t q_offset =
      0;              // position of query 0, a multiple of 64; its keys are 0 .. q_offset + num_tokens
  int num_heads = 0;  // a multiple of num_kv_heads
  int num_kv_heads = 0;
  int head_dim = 0;         // 64 or 128
  float scale = 0;          // > 0, as in the attention that gave lse
  float* target = nullptr;  // [num_heads, ceil(num_tokens / 64), stride]
  std::int64_t stride = 0;  // at least the number of key blocks
};

/// target[h, i, j] = A[i, j] / sum_j A[i, j], A[i, j] the largest probability of the causal softmax in query
/// block q_offset / 64 + i and key block j; 0 after the diagonal, up to `stride`. Probabilities are float32:
/// exp(score * scale - lse) of scores accumulated in float32. Same inputs, same bits; no workspace, nothing
/// of size num_tokens x blocks. Throws Error on parameters outside the stated set and when CUDA reports an
/// error.
void pooled_target(const PooledTargetParams& params, Stream stream);

/// Where attention_with_target() puts the pooled target.
struct PooledTargetOutput {
  float* target = nullptr;    // [num_heads, max_rows, stride]
  std::int64_t stride = 0;    // at least the number of key blocks
  std::int64_t q_offset = 0;  // seqlen_k - seqlen_q, a multiple of 64
  void* workspace = nullptr;  // pooled_target_workspace() bytes, any contents; of one call at a time
};

/// Bytes for a model of these heads; grows with `stride`, not with the number of queries.
std::size_t pooled_target_workspace(int num_heads, int num_kv_heads, std::int64_t stride);

/// attention_prefill() and pooled_target() of one sequence: dense, paged keys, lse given. In one pass over
/// the keys for an even number of query heads a KV head, else one after the other. Throws Error as they do.
void attention_with_target(const PrefillAttentionParams& params, const PooledTargetOutput& output,
                           Stream stream);

}  // namespace seer::cuda
