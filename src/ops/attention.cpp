#include "ops/attention.h"

#include "core/check.h"
#include "cpu/attention/kv_store.h"
#include "cpu/attention/prefill.h"

namespace seer {
namespace {

void check_pages(const char* op, const PagedKv& kv) {
  SEER_CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16,
             "{}: the KV cache holds F32 or BF16, but has {}", op, name_of(kv.dtype));
  SEER_CHECK(kv.num_kv_heads > 0, "{}: expected one KV head or more, found {}", op, kv.num_kv_heads);
  SEER_CHECK(kv.head_dim > 0 && kv.head_dim <= 256 && kv.head_dim % 16 == 0,
             "{}: head_dim must be a multiple of 16 up to 256, found {}", op, kv.head_dim);
  SEER_CHECK(kv.page_stride >= PagedKv::page_bytes(kv.dtype, kv.num_kv_heads, kv.head_dim) &&
                 kv.page_stride % 64 == 0 && reinterpret_cast<std::uintptr_t>(kv.pool) % 64 == 0,
             "{}: pages must hold {} bytes at multiples of 64, but are {} apart", op,
             PagedKv::page_bytes(kv.dtype, kv.num_kv_heads, kv.head_dim), kv.page_stride);
}

void check_prefill(const PrefillAttentionParams& params) {
  constexpr const char* kOp = "attention_prefill";
  check_pages(kOp, params.kv);
  SEER_CHECK(params.num_tokens >= 0 && params.q_offset >= 0,
             "{}: num_tokens and q_offset must not be negative, found {} and {}", kOp, params.num_tokens,
             params.q_offset);
  SEER_CHECK(params.num_heads > 0 && params.num_heads % params.kv.num_kv_heads == 0,
             "{}: the number of heads must be a multiple of the {} KV heads, found {}", kOp,
             params.kv.num_kv_heads, params.num_heads);
  SEER_CHECK(params.scale > 0, "{}: scale must be positive, found {}", kOp, params.scale);
  SEER_CHECK(params.kv.length >= params.q_offset + params.num_tokens,
             "{}: the KV cache holds {} tokens, but the queries end at {}", kOp, params.kv.length,
             params.q_offset + params.num_tokens);
  const std::int64_t first_row = params.q_offset / kBlockSize;
  const std::int64_t rows = blocks_for(params.q_offset + params.num_tokens) - first_row;
  if (params.mask != nullptr) {
    const BlockMask& mask = *params.mask;
    SEER_CHECK(
        mask.num_heads() == params.num_heads && mask.first_row() == first_row && mask.num_rows() == rows,
        "{}: expected a mask of {} heads and block rows {}..{}, found {} heads and rows {}..{}", kOp,
        params.num_heads, first_row, first_row + rows, mask.num_heads(), mask.first_row(),
        mask.first_row() + mask.num_rows());
  }
  if (params.pooled_target != nullptr) {
    SEER_CHECK(params.mask == nullptr && params.q_offset % kBlockSize == 0,
               "{}: pooled_target needs dense attention and a q_offset that is a multiple of {}, found {} {}",
               kOp, kBlockSize, params.mask == nullptr ? "q_offset" : "a mask and q_offset", params.q_offset);
    SEER_CHECK(params.pooled_target_stride >= first_row + rows,
               "{}: pooled_target_stride must hold {} blocks, found {}", kOp, first_row + rows,
               params.pooled_target_stride);
  }
}

}  // namespace

void kv_store(const Context& context, const PagedKv& kv, std::int64_t first_position, std::int64_t num_tokens,
              const float* k, const float* v) {
  check_pages("kv_store", kv);
  SEER_CHECK(first_position >= 0 && num_tokens >= 0 && first_position + num_tokens <= kv.length,
             "kv_store: positions {}..{} are outside the {} tokens of the KV cache", first_position,
             first_position + num_tokens, kv.length);
  if (num_tokens > 0) cpu::kv_store(context, kv, first_position, num_tokens, k, v);
}

void attention_prefill(const Context& context, const PrefillAttentionParams& params) {
  check_prefill(params);
  if (params.num_tokens > 0) cpu::attention_prefill(context, params);
}

}  // namespace seer
