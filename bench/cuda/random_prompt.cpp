#include "random_prompt.h"

#include <cmath>
#include <vector>

#include "device_fill.h"
#include "ops/block_mask.h"

namespace seer::cuda {

RandomPrompt::RandomPrompt(const AttentionBenchOptions& options, std::int64_t tokens)
    : length(tokens),
      heads(options.heads),
      kv_heads(options.kv_heads),
      head_dim(options.head_dim),
      dtype(options.dtype),
      q(tokens * heads * head_dim),
      out(q.size()),
      k(tokens * kv_heads * head_dim),
      v(k.size()),
      cu_seqlens(std::vector<std::int32_t>{0, static_cast<std::int32_t>(tokens)}),
      workspace(2) {
  workspace.fill_bytes(0);
  fill_normal(dtype, q.data(), q.size(), 1);
  fill_normal(dtype, k.data(), k.size(), 2);
  fill_normal(dtype, v.data(), v.size(), 3);
}

PrefillAttentionParams RandomPrompt::params() {
  const std::int64_t q_row = std::int64_t{heads} * head_dim;
  return {.q = q.data(),
          .q_token_stride = q_row,
          .q_head_stride = head_dim,
          .out = out.data(),
          .out_token_stride = q_row,
          .out_head_stride = head_dim,
          .kv = {.k = k.data(),
                 .v = v.data(),
                 .token_stride = std::int64_t{kv_heads} * head_dim,
                 .head_stride = head_dim,
                 .total_tokens = length},
          .dtype = dtype,
          .num_heads = heads,
          .num_kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
          .cu_seqlens_q = cu_seqlens.data(),
          .cu_seqlens_k = cu_seqlens.data(),
          .total_q = length,
          .max_rows = blocks_for(length),
          .workspace = workspace.data()};
}

}  // namespace seer::cuda
