// What gates learn from: the attention map of a dense layer, pooled over 64x64 blocks.
//
// Source: SeerAttention, arXiv 2410.13276, section 4 (its kernel keeps row maxima in bf16; float32 here).
// Schedule and numbers: docs/kernels/hopper_distill.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/attention.h"

namespace seer::cuda {

/// Where attention_with_target() puts the pooled target. Device memory; `stride` in elements.
struct PooledTargetOutput {
  float* target = nullptr;    // [num_heads, max_rows, stride]
  std::int64_t stride = 0;    // at least the number of key blocks
  std::int64_t q_offset = 0;  // seqlen_k - seqlen_q, a multiple of 64
  void* workspace = nullptr;  // pooled_target_workspace() bytes, any contents; of one call at a time
};

/// Bytes for the current device; grows with `stride`, not with the number of queries or heads.
std::size_t pooled_target_workspace(std::int64_t stride);

/// attention_prefill() of one sequence, or a chunk of it (dense, paged keys, lse given, any number of query
/// heads a KV head; `sharing` does not count), with the same bits, and in the same pass over the keys
///
///   target[h, i, j] = A[i, j] / sum_j A[i, j],
///
/// A[i, j] the largest probability of the causal softmax in query block q_offset / 64 + i and key block j; 0
/// after the diagonal, up to `stride`. Probabilities are float32: exp(score * scale - lse) of scores
/// accumulated in float32. Same inputs, same bits; nothing of size tokens x blocks. Throws Error on
/// parameters outside the stated set and when CUDA reports an error.
void attention_with_target(const PrefillAttentionParams& params, const PooledTargetOutput& output,
                           Stream stream);

}  // namespace seer::cuda
