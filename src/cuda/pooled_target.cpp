#include "cuda/pooled_target.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/check.h"
#include "cuda/pooled_target_launch.h"
#include "cuda/tensor_map.h"

namespace seer::cuda {

void pooled_target(const PooledTargetParams& p, Stream stream) {
  SEER_CHECK(p.dtype == DType::kBF16 || p.dtype == DType::kF16, "pooled_target: dtype BF16 or F16, got {}",
             name_of(p.dtype));
  SEER_CHECK(p.head_dim == 64 || p.head_dim == 128, "pooled_target: head_dim 64 or 128, got {}", p.head_dim);
  SEER_CHECK(p.num_kv_heads > 0 && p.num_heads > 0 && p.num_heads % p.num_kv_heads == 0,
             "pooled_target: num_heads must be a multiple of num_kv_heads, got {} and {}", p.num_heads,
             p.num_kv_heads);
  SEER_CHECK(p.scale > 0, "pooled_target: scale must be positive, got {}", p.scale);
  SEER_CHECK(p.num_tokens >= 0 && p.q_offset >= 0 && p.q_offset % 64 == 0,
             "pooled_target: num_tokens must not be negative and q_offset a multiple of 64, got {} and {}",
             p.num_tokens, p.q_offset);
  if (p.num_tokens == 0) return;
  const std::int64_t rows = (p.num_tokens + 63) / 64;
  const std::int64_t blocks = p.q_offset / 64 + rows;
  SEER_CHECK(
      p.q_offset + p.num_tokens < (std::int64_t{1} << 31) && rows * p.num_heads < (std::int64_t{1} << 31),
      "pooled_target: tokens and num_heads * rows must be below 2^31, got {} and {}",
      p.q_offset + p.num_tokens, rows * p.num_heads);
  SEER_CHECK(p.stride >= blocks, "pooled_target: stride must be at least the {} key blocks, got {}", blocks,
             p.stride);
  check_aligned("q", p.q, p.q_token_stride, p.q_head_stride);
  check_aligned("k", p.kv.k, p.kv.token_stride, p.kv.head_stride);
  SEER_CHECK(
      p.kv.page_table != nullptr && p.kv.page_stride > 0 && p.kv.page_stride % 8 == 0 && p.kv.num_pages > 0,
      "pooled_target: needs a paged cache, page_stride a positive multiple of 8 and num_pages positive, got "
      "{} and {}",
      p.kv.page_stride, p.kv.num_pages);
  SEER_CHECK(p.lse != nullptr && p.target != nullptr, "pooled_target: lse and target must be given");

  const TargetMaps maps = {panel_map("q", p.dtype, p.q, p.head_dim, p.num_tokens, p.q_token_stride,
                                     p.num_heads, p.q_head_stride, 1, 0),
                           panel_map("k", p.dtype, p.kv.k, p.head_dim, 64, p.kv.token_stride, p.num_kv_heads,
                                     p.kv.head_stride, p.kv.num_pages, p.kv.page_stride)};
  const TargetArguments arguments = {.lse = p.lse,
                                     .page_table = p.kv.page_table,
                                     .target = p.target,
                                     .stride = p.stride,
                                     .num_tokens = p.num_tokens,
                                     .rows = static_cast<int>(rows),
                                     .first_block = static_cast<int>(p.q_offset / 64),
                                     .num_kv_heads = p.num_kv_heads,
                                     .group = p.num_heads / p.num_kv_heads,
                                     .scale = p.scale};
  const auto cuda_stream = static_cast<CUstream_st*>(stream);
  if (p.dtype == DType::kBF16) {
    (p.head_dim == 128 ? launch_pooled_target<__nv_bfloat16, 128>
                       : launch_pooled_target<__nv_bfloat16, 64>)(maps, arguments, cuda_stream);
  } else {
    (p.head_dim == 128 ? launch_pooled_target<__half, 128>
                       : launch_pooled_target<__half, 64>)(maps, arguments, cuda_stream);
  }
}

}  // namespace seer::cuda
