// Attention on Hopper GPUs (sm_90a): causal prefill, dense or limited to selected 64x64 blocks, and decode
// over a paged cache. Every pointer is device memory unless named otherwise; calls are asynchronous on
// `stream`. Query head h reads KV head h / (num_heads / num_kv_heads); k and v are never repeated.
//
// Source: SeerAttention, arXiv 2410.13276, section 4. Schedule and numbers: docs/kernels/hopper_prefill.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/dtype.h"

namespace seer::cuda {

/// A CUDA stream (cudaStream_t); nullptr is the default stream.
using Stream = void*;

/// True if the process can run these kernels: built with CUDA, a driver, and a device of compute capability
/// 9.0. `reason`, if given, says what is missing.
bool available(std::string* reason = nullptr);

/// The current device. Throws Error when there is none.
struct DeviceInfo {
  std::string name;
  std::int64_t memory_bytes = 0;
  std::int64_t free_bytes = 0;
};
DeviceInfo device_info();

/// Keys and values of a batch: contiguous (page_table == nullptr) or in pages of 64 tokens.
///
/// Contiguous: element (t, g, d) of sequence b at k[(cu_seqlens_k[b] + t) * token_stride + g * head_stride +
/// d]. Paged: token t lies in page p = page_table[b * page_table_stride + t / 64], element (t, g, d) at k[p *
/// page_stride + g * head_stride + (t % 64) * token_stride + d]. Pages hold finite values in all slots.
/// Strides are in elements, multiples of 8; k and v are 16-byte aligned; v has k's strides.
struct KeysValues {
  const void* k = nullptr;
  const void* v = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t total_tokens = 0;             // contiguous: tokens that k and v hold over all sequences
  const std::int32_t* page_table = nullptr;  // [batch, page_table_stride]
  std::int64_t page_table_stride = 0;
  std::int64_t page_stride = 0;
  std::int64_t num_pages = 0;  // pages in the pool
};

/// Whether query tiles on one multiprocessor share the keys and values that it reads.
enum class TileSharing : std::uint8_t {
  kAuto,  // shared where possible
  kSeparate,
  kShared,  // dense or, for an even number of query heads a KV head, with a mask by KV head
};

/// Causal attention of q against k and v. The queries of sequence b are the last ones of its keys: query i
/// has position seqlen_k - seqlen_q + i, so a chunk of a longer prompt is given by cu_seqlens_k alone.
/// seqlen_k >= seqlen_q for every sequence; both may be 0.
struct PrefillAttentionParams {
  const void* q = nullptr;  // element (t, h, d) at q[t * q_token_stride + h * q_head_stride + d], after RoPE
  std::int64_t q_token_stride = 0;
  std::int64_t q_head_stride = 0;
  void* out = nullptr;  // as q, with its own strides
  std::int64_t out_token_stride = 0;
  std::int64_t out_head_stride = 0;
  float* lse = nullptr;  // [num_heads, total_q] natural log-sum-exp of the scaled scores; nullptr: not wanted
  KeysValues kv;
  DType dtype = DType::kBF16;  // of q, k, v and out: kBF16 or kF16
  int batch = 1;
  int num_heads = 0;  // a multiple of num_kv_heads
  int num_kv_heads = 0;
  int head_dim = 0;                            // 64 or 128
  float scale = 0;                             // > 0, normally head_dim^-0.5
  const std::int32_t* cu_seqlens_q = nullptr;  // [batch + 1]
  const std::int32_t* cu_seqlens_k =
      nullptr;               // [batch + 1]; also for paged keys, where it gives lengths only
  std::int64_t total_q = 0;  // cu_seqlens_q[batch]
  /// Most block rows (of 64 absolute positions) that any sequence's queries touch.
  std::int64_t max_rows = 0;
  /// Selected key blocks, bit j % 64 of word j / 64: [batch, mask_heads, max_rows, mask_words], row r of
  /// sequence b standing for block row (seqlen_k - seqlen_q) / 64 + r. Bits past the diagonal are ignored.
  /// nullptr: dense. mask_words covers the longest sequence. mask_heads is num_heads or, if the heads of a
  /// group share their blocks, num_kv_heads.
  const std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;
  int mask_heads = 0;
  /// Two counters, zeroed once; every call leaves them zero. Distinct for calls that may run at the same
  /// time.
  std::int32_t* workspace = nullptr;
  TileSharing sharing = TileSharing::kAuto;
};

/// Softmax over the selected blocks' keys (element-causal inside the diagonal block), float32 accumulation. A
/// row without any selected block gives out = 0 and lse = -inf. Same inputs, same bits. Throws Error on
/// parameters outside the stated set and when CUDA reports an error.
void attention_prefill(const PrefillAttentionParams& params, Stream stream);

/// One query token for each sequence of a batch, its last one, against a paged cache.
struct DecodeAttentionParams {
  const void* q = nullptr;  // element (b, h, d) at q[b * q_batch_stride + h * q_head_stride + d], after RoPE
  std::int64_t q_batch_stride = 0;
  std::int64_t q_head_stride = 0;
  void* out = nullptr;  // as q, with its own strides
  std::int64_t out_batch_stride = 0;
  std::int64_t out_head_stride = 0;
  float* lse = nullptr;  // [batch, num_heads] natural log-sum-exp of the scaled scores; nullptr: not wanted
  KeysValues kv;         // paged
  DType dtype = DType::kBF16;
  int batch = 1;
  int num_heads = 0;  // a multiple of num_kv_heads, at most 16 times
  int num_kv_heads = 0;
  int head_dim = 0;  // 64 or 128
  float scale = 0;   // > 0
  const std::int32_t* seqlens_k =
      nullptr;  // [batch] keys of each sequence, the query's own among them; may be 0
  /// Selected key blocks: [batch, num_kv_heads, mask_words], shared by a group's heads; bits from the last
  /// block on are ignored. nullptr: dense.
  const std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;
  /// attention_decode_workspace() bytes, zeroed once; every call leaves it ready for the next one. Distinct
  /// for calls that may run at the same time.
  void* workspace = nullptr;
  /// Parts that each sequence's list of blocks is cut into; 0: chosen from the device and the batch.
  int splits = 0;
};

/// Bytes of workspace that attention_decode needs for these parameters (batch, heads, head_dim and splits
/// count).
std::size_t attention_decode_workspace(const DecodeAttentionParams& params);

/// Softmax over the selected blocks' keys, all heads of a KV group together; each list of blocks is cut into
/// parts that run side by side, and the last one to finish combines them in a fixed order: same inputs, same
/// bits. No selected block or no key gives out = 0 and lse = -inf.
void attention_decode(const DecodeAttentionParams& params, Stream stream);

}  // namespace seer::cuda
