// Readable attention in float64 on the GPU: what the fast kernels are checked against.
#pragma once

#include <cstdint>

#include "cuda/attention.h"

namespace seer::cuda {

/// Where the reference rounds.
enum class ReferenceRounding : std::uint8_t {
  kNone,     // float64 throughout: the definition
  kStorage,  // scores, probabilities and output rounded to params.dtype, as plain tensor code in that type
             // does
};

/// attention_prefill's result for the queries t with t % token_step == 0 (t counted over the whole batch):
/// out [total_q, num_heads, head_dim] and lse [num_heads, total_q], float64; other queries are left alone.
/// params.out, lse and workspace are not used.
void attention_prefill_reference(const PrefillAttentionParams& params, std::int64_t token_step,
                                 ReferenceRounding rounding, double* out, double* lse, Stream stream);

}  // namespace seer::cuda
