// The cases that every backend's attention is tested on, and what they are made of.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/dtype.h"
#include "ops/attention.h"
#include "support/compare.h"

namespace seer::test {

/// How a case's block mask is made.
enum class MaskKind { kNone, kFull, kDiagonal, kRandom, kSomeEmptyRows, kOneHeadDense };

/// A prefill of `num_tokens` queries after `q_offset` cached tokens.
struct AttentionCase {
  std::string name;
  std::int64_t num_tokens = 0;
  std::int64_t q_offset = 0;
  int num_heads = 1;
  int num_kv_heads = 1;
  int head_dim = 64;
  MaskKind mask = MaskKind::kNone;
  double density = 0.3;    // of kRandom and the rest
  float magnitude = 1.0f;  // of q: large ones make peaked rows
};

inline std::vector<AttentionCase> attention_cases() {
  return {
      {"one_token", 1, 0, 2, 1, 64},
      {"short_block", 63, 0, 2, 2, 64},
      {"one_block", 64, 0, 4, 1, 128},
      {"block_and_one", 65, 0, 3, 3, 32},
      {"ragged", 300, 0, 4, 2, 128},
      {"group_of_seven", 200, 0, 7, 1, 80},
      {"group_of_eight_and_more", 130, 0, 20, 2, 16},
      {"many_kv_heads", 192, 0, 8, 8, 48},
      {"wide_head", 150, 0, 2, 1, 256},
      {"offset_of_blocks", 100, 128, 4, 2, 64},
      {"offset_inside_block", 100, 77, 4, 2, 64},
      {"offset_single_query", 1, 191, 6, 2, 96},
      {"offset_within_one_block", 5, 70, 2, 2, 112},
      {"peaked", 260, 0, 2, 1, 64, MaskKind::kNone, 0, 30.0f},
      {"full_mask", 256, 0, 4, 2, 64, MaskKind::kFull},
      {"diagonal", 230, 0, 4, 4, 128, MaskKind::kDiagonal},
      {"random_mask", 500, 0, 8, 2, 64, MaskKind::kRandom},
      {"random_mask_offset", 260, 333, 4, 1, 128, MaskKind::kRandom, 0.4},
      {"empty_rows", 300, 0, 6, 3, 64, MaskKind::kSomeEmptyRows, 0.5},
      {"one_head_dense", 320, 0, 4, 1, 64, MaskKind::kOneHeadDense, 0.2},
      {"many_blocks", 30, 64 * 130, 2, 1, 32, MaskKind::kRandom, 0.05},
  };
}

/// Inputs of a case in pages in a shuffled order; slots past the end and other pages hold large finite
/// values.
class AttentionProblem {
 public:
  AttentionProblem(const AttentionCase& shape, DType dtype)
      : q(shape.num_tokens * shape.num_heads * shape.head_dim),
        k((shape.q_offset + shape.num_tokens) * shape.num_kv_heads * shape.head_dim),
        v(k.size()) {
    fill_normal({q.data(), static_cast<std::size_t>(q.size())}, 1, shape.magnitude);
    fill_normal({k.data(), static_cast<std::size_t>(k.size())}, 2);
    fill_normal({v.data(), static_cast<std::size_t>(v.size())}, 3);
    const std::int64_t length = shape.q_offset + shape.num_tokens;
    const std::int64_t blocks = blocks_for(length);
    kv.dtype = dtype;
    kv.num_kv_heads = shape.num_kv_heads;
    kv.head_dim = shape.head_dim;
    kv.length = length;
    kv.page_stride = PagedKv::page_bytes(dtype, shape.num_kv_heads, shape.head_dim) + 128;
    pool_ = Buffer<std::byte>((blocks + 1) * kv.page_stride);
    fill_pool();
    kv.pool = pool_.data();
    table_.resize(static_cast<std::size_t>(blocks));
    for (std::size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<std::int32_t>(i) + 1;
    std::mt19937 random(4);
    for (std::size_t i = table_.size(); i > 1; --i) std::swap(table_[i - 1], table_[random() % i]);
    kv.page_table = table_.data();
    make_mask(shape);
  }

  AttentionProblem(const AttentionProblem&) = delete;
  AttentionProblem& operator=(const AttentionProblem&) = delete;

  /// Params without outputs.
  PrefillAttentionParams params(const AttentionCase& shape) const {
    PrefillAttentionParams params;
    params.q = q.data();
    params.num_tokens = shape.num_tokens;
    params.q_offset = shape.q_offset;
    params.num_heads = shape.num_heads;
    params.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
    params.kv = kv;
    params.mask = shape.mask == MaskKind::kNone ? nullptr : &mask;
    return params;
  }

  Buffer<float> q;  // [num_tokens, num_heads, head_dim]
  Buffer<float> k;  // [q_offset + num_tokens, num_kv_heads, head_dim]
  Buffer<float> v;
  PagedKv kv;
  BlockMask mask;

 private:
  void fill_pool() {
    if (kv.dtype == DType::kF32) {
      for (std::int64_t i = 0; i < pool_.size() / 4; ++i) reinterpret_cast<float*>(pool_.data())[i] = 1e30f;
    } else {
      for (std::int64_t i = 0; i < pool_.size() / 2; ++i)
        reinterpret_cast<BFloat16*>(pool_.data())[i] = to_bfloat16(1e30f);
    }
  }

  void make_mask(const AttentionCase& shape) {
    if (shape.mask == MaskKind::kNone) return;
    const std::int64_t first_row = shape.q_offset / kBlockSize;
    mask.reset(shape.num_heads, first_row, blocks_for(kv.length) - first_row);
    std::mt19937 random(5);
    std::uniform_real_distribution<double> uniform(0, 1);
    for (int head = 0; head < shape.num_heads; ++head) {
      for (std::int64_t row = 0; row < mask.num_rows(); ++row) {
        const std::int64_t diagonal = first_row + row;
        const bool full =
            shape.mask == MaskKind::kFull || (shape.mask == MaskKind::kOneHeadDense && head == 1);
        if (full) mask.set_range(head, row, 0, diagonal + 1);
        if (shape.mask == MaskKind::kSomeEmptyRows && (row + head) % 2 == 0) continue;
        if (shape.mask != MaskKind::kSomeEmptyRows) mask.set(head, row, diagonal);
        if (full || shape.mask == MaskKind::kDiagonal) continue;
        for (std::int64_t block = 0; block <= diagonal; ++block)
          if (uniform(random) < shape.density) mask.set(head, row, block);
      }
    }
  }

  Buffer<std::byte> pool_;
  std::vector<std::int32_t> table_;
};

}  // namespace seer::test
