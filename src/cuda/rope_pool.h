// What happens to queries and keys between the projections and attention: per-head RMSNorm, block pooling for
// the gate, RoPE, and storing keys and values in the paged cache, in one pass over them. Every pointer is
// device memory; calls are asynchronous on `stream`.
//
// Source: SeerAttention, arXiv 2410.13276, section 3. Schedule and numbers: docs/kernels/hopper_gate.md.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "cuda/attention.h"

namespace seer::cuda {

/// Tables cos, sin [count, dim / 2] of positions first + i * step: the angle is position * inv_freq[pair] in
/// float64, its cosine and sine are multiplied by attention_factor and rounded once. inv_freq [dim / 2].
void rope_table(const double* inv_freq, int dim, double attention_factor, std::int64_t first,
                std::int64_t step, std::int64_t count, float* cos, float* sin, Stream stream);

/// One layer's cache in pages of 64 tokens, laid out as KeysValues, to be written. Strides in elements,
/// multiples of 8; k and v are 16-byte aligned.
struct PagedCache {
  void* k = nullptr;
  void* v = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t page_stride = 0;
  const std::int32_t* page_table = nullptr;  // [batch, page_table_stride]
  std::int64_t page_table_stride = 0;
};

/// One sequence's chunk of a prefill.
struct RopePoolParams {
  /// [num_tokens, num_heads + 2 * num_kv_heads, head_dim]: query heads, key heads, value heads; tokens are
  /// qkv_stride elements apart.
  const void* qkv = nullptr;
  std::int64_t qkv_stride = 0;
  /// Out: [num_tokens, num_heads, head_dim] after RoPE; tokens are q_stride elements apart. May be qkv.
  void* q = nullptr;
  std::int64_t q_stride = 0;
  PagedCache cache;            // out: keys after RoPE and values of positions first_position...
  const float* cos = nullptr;  // [*, head_dim / 2]: row p stands for position p
  const float* sin = nullptr;
  const float* q_norm = nullptr;  // per-head RMSNorm weights [head_dim]; nullptr: no norm
  const float* k_norm = nullptr;
  float norm_eps = 0;
  DType dtype = DType::kBF16;  // of qkv, q and the cache: kBF16 or kF16
  std::int64_t num_tokens = 0;
  std::int64_t first_position = 0;  // a multiple of 64
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;      // 64 or 128
  unsigned q_pools = 0;  // PoolSet; used where the output is given
  unsigned k_pools = 0;
  /// Out: pooled over each 64 tokens after the norm and before RoPE, in float32, the pools in the order max,
  /// min, avg; the short last block pools over its own tokens. nullptr: not wanted.
  float* q_pooled = nullptr;  // [blocks, num_heads, pools * head_dim]
  float* k_pooled = nullptr;  // [blocks, num_kv_heads, pools * head_dim]
  /// Out: the same rounded to bf16, as the gate's products take them; nullptr: not wanted.
  void* q_gate = nullptr;
  void* k_gate = nullptr;
  /// Where given, q_gate, of a single pool, is rotated: row b [blocks, head_dim / 2] for the chunk's block b.
  const float* block_cos = nullptr;
  const float* block_sin = nullptr;
};

/// Throws Error on parameters outside the stated set and when CUDA reports an error.
void rope_pool(const RopePoolParams& params, Stream stream);

/// One token for each sequence of a batch (decode).
struct RopeStoreParams {
  const void* qkv = nullptr;  // [batch, num_heads + 2 * num_kv_heads, head_dim], as in RopePoolParams
  std::int64_t qkv_stride = 0;
  void* q = nullptr;
  std::int64_t q_stride = 0;
  PagedCache cache;  // row b of the page table belongs to sequence b
  const float* cos = nullptr;
  const float* sin = nullptr;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_eps = 0;
  DType dtype = DType::kBF16;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int batch = 0;
  const std::int32_t* positions = nullptr;  // [batch] position of each sequence's token
};

/// Throws Error as rope_pool does.
void rope_store(const RopeStoreParams& params, Stream stream);

}  // namespace seer::cuda
