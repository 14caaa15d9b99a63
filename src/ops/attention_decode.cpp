#include <algorithm>

#include "core/check.h"
#include "cpu/decode/kernels.h"
#include "ops/attention.h"

namespace seer {

void attention_decode(const Context& context, const DecodeAttentionParams& params) {
  if (params.kv.empty()) return;
  const PagedKv& first = params.kv[0];
  std::int64_t longest = 0;
  for (const PagedKv& kv : params.kv) {
    SEER_CHECK(
        kv.dtype == first.dtype && kv.num_kv_heads == first.num_kv_heads && kv.head_dim == first.head_dim,
        "attention_decode: all sequences must have {} KV heads of {} {}, found {} of {} {}",
        first.num_kv_heads, first.head_dim, name_of(first.dtype), kv.num_kv_heads, kv.head_dim,
        name_of(kv.dtype));
    SEER_CHECK(kv.page_stride % 64 == 0 && reinterpret_cast<std::uintptr_t>(kv.pool) % 64 == 0,
               "attention_decode: pages must be at multiples of 64 bytes, but are {} apart", kv.page_stride);
    SEER_CHECK(kv.length >= 0, "attention_decode: a sequence has the length {}", kv.length);
    longest = std::max(longest, kv.length);
  }
  SEER_CHECK(first.dtype == DType::kF32 || first.dtype == DType::kBF16,
             "attention_decode: the KV cache holds F32 or BF16, but has {}", name_of(first.dtype));
  SEER_CHECK(first.head_dim > 0 && first.head_dim <= 256 && first.head_dim % 16 == 0,
             "attention_decode: head_dim must be a multiple of 16 up to 256, found {}", first.head_dim);
  SEER_CHECK(first.num_kv_heads > 0 && params.num_heads > 0 && params.num_heads % first.num_kv_heads == 0,
             "attention_decode: the number of heads must be a multiple of the {} KV heads, found {}",
             first.num_kv_heads, params.num_heads);
  SEER_CHECK(params.scale > 0, "attention_decode: scale must be positive, found {}", params.scale);
  SEER_CHECK(params.mask == nullptr || params.mask_words * 64 >= blocks_for(longest),
             "attention_decode: the mask has {} words of 64 blocks, the longest sequence has {} blocks",
             params.mask_words, blocks_for(longest));
  cpu::attention_decode(context, params);
}

}  // namespace seer
