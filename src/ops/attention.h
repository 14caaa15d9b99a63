// Causal attention over a paged KV cache: dense or limited to selected 64x64 blocks, for prefill and decode,
// with the block-maximum target that gates are distilled from. GQA by index: query head h reads KV head
// h / (num_heads / num_kv_heads); k and v are never repeated.
//
// Source: SeerAttention, arXiv 2410.13276, sections 3 and 4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/context.h"
#include "core/dtype.h"
#include "ops/block_mask.h"

namespace seer {

/// One layer's keys and values of one sequence in pages of 64 tokens. A page holds, for each KV head, a K
/// tile and then a V tile of 64 * head_dim elements each (contiguous, 64-byte aligned).
///
/// Tile layouts on the CPU, chosen so that no kernel shuffles or packs in its loop:
///   float32:  K [head_dim][64]       V [64][head_dim]
///   bf16:     K [head_dim/2][64][2]  V [32][head_dim][2]   (the pairs of VDPBF16PS; a 32-bit lane widens to
///                                                           its two values by one shift and one AND)
/// Slots past `length` in the last page hold finite values (zeros at first) that kernels mask.
struct PagedKv {
  DType dtype = DType::kF32;                 // kF32 or kBF16
  std::byte* pool = nullptr;                 // first byte of page 0 of this layer
  std::int64_t page_stride = 0;              // bytes from one page to the next
  const std::int32_t* page_table = nullptr;  // [blocks_for(length)] page numbers of this sequence
  int num_kv_heads = 0;
  int head_dim = 0;
  std::int64_t length = 0;  // tokens held

  std::int64_t tile_elements() const { return kBlockSize * head_dim; }
  std::byte* k_tile(std::int64_t block, int kv_head) const {
    return pool + page_table[block] * page_stride +
           2 * kv_head * tile_elements() * static_cast<std::int64_t>(size_of(dtype));
  }
  std::byte* v_tile(std::int64_t block, int kv_head) const {
    return k_tile(block, kv_head) + tile_elements() * static_cast<std::int64_t>(size_of(dtype));
  }
  /// Bytes of one layer's page.
  static std::int64_t page_bytes(DType dtype, int num_kv_heads, int head_dim) {
    return 2 * kBlockSize * num_kv_heads * head_dim * static_cast<std::int64_t>(size_of(dtype));
  }
};

/// Writes k and v (float32, [num_tokens, num_kv_heads, head_dim], k after RoPE) to positions
/// [first_position, first_position + num_tokens) of the pages; rounds to nearest even for bf16.
/// kv.length must already cover them.
void kv_store(const Context& context, const PagedKv& kv, std::int64_t first_position, std::int64_t num_tokens,
              const float* k, const float* v);

/// Prefill attention of `num_tokens` queries at positions [q_offset, q_offset + num_tokens).
struct PrefillAttentionParams {
  const float* q = nullptr;  // [num_tokens, num_heads, head_dim], after RoPE
  float* out = nullptr;  // [num_tokens, num_heads, head_dim]; may be nullptr when only the target is wanted
  float* lse = nullptr;  // [num_heads, num_tokens] natural log-sum-exp of the scaled scores, or nullptr
  std::int64_t num_tokens = 0;
  std::int64_t q_offset = 0;  // any value; block rows are those of absolute positions
  int num_heads = 0;          // a multiple of kv.num_kv_heads
  float scale = 0;            // normally head_dim^-0.5
  PagedKv kv;                 // holds at least q_offset + num_tokens tokens
  const BlockMask* mask =
      nullptr;  // nullptr: dense. Rows cover blocks q_offset/64 .. (q_offset+num_tokens-1)/64
  /// Dense only, q_offset a multiple of 64: [num_heads, rows, row_stride] where T[i, j] for j <= first_row +
  /// i is the largest causal softmax probability of block (i, j) divided by the row's sum of these, and 0 for
  /// the columns after; float32. nullptr: not wanted.
  float* pooled_target = nullptr;
  std::int64_t pooled_target_stride = 0;  // >= first_row + rows
};

/// Softmax over the selected blocks' keys (element-causal inside the diagonal block), float32 accumulation.
/// A row without any selected block gives out = 0 and lse = -inf. Same inputs and thread count or not: same
/// bits. head_dim is a multiple of 16, at most 256. Throws Error on shapes that do not fit.
void attention_prefill(const Context& context, const PrefillAttentionParams& params);

/// One query token for each sequence of a batch, at position kv.length - 1 (its key already stored).
struct DecodeAttentionParams {
  const float* q = nullptr;  // [batch, num_heads, head_dim], after RoPE
  float* out = nullptr;      // [batch, num_heads, head_dim]
  int num_heads = 0;
  float scale = 0;
  std::span<const PagedKv> kv;  // one per sequence, of any lengths; length 0 gives out = 0
  /// Selected key blocks: bitmask [batch, num_kv_heads, mask_words], shared by a group's heads; nullptr:
  /// dense.
  const std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;
};

void attention_decode(const Context& context, const DecodeAttentionParams& params);

}  // namespace seer
