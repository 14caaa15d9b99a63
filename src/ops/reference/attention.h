// What attention means, in float64 and without regard for speed: tests and benchmarks compare with it.
#pragma once

#include <cstdint>

#include "ops/attention.h"

namespace seer::reference {

/// Element d of the key or value at `position`, read from its page.
double key(const PagedKv& kv, int kv_head, std::int64_t position, std::int64_t d);
double value(const PagedKv& kv, int kv_head, std::int64_t position, std::int64_t d);

/// One query of a prefill: out [head_dim]; returns the natural log-sum-exp (-infinity and zeros if no block
/// of the token's row is selected).
double attention_prefill_row(const PrefillAttentionParams& params, std::int64_t token, int head, double* out);

/// All of attention_prefill: out [num_tokens, num_heads, head_dim], lse [num_heads, num_tokens], and
/// pooled_target [num_heads, rows, params.pooled_target_stride] if it is not nullptr. params.out, lse and
/// pooled_target are not touched.
void attention_prefill(const PrefillAttentionParams& params, double* out, double* lse, double* pooled_target);

/// All of attention_decode: out [batch, num_heads, head_dim].
void attention_decode(const DecodeAttentionParams& params, double* out);

}  // namespace seer::reference
