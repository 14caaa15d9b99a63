#include "cpu/attention/kv_store.h"

#include <algorithm>

namespace seer::cpu {
namespace {

/// Tokens [begin, end) of one block and KV head; k and v point at slot 0's row, rows `stride` apart.
void store_f32(const PagedKv& kv, std::int64_t block, int head, std::int64_t begin, std::int64_t end,
               const float* k, const float* v, std::int64_t stride) {
  const std::int64_t dim = kv.head_dim;
  float* k_tile = reinterpret_cast<float*>(kv.k_tile(block, head));
  float* v_tile = reinterpret_cast<float*>(kv.v_tile(block, head));
  for (std::int64_t d = 0; d < dim; ++d)
    for (std::int64_t t = begin; t < end; ++t) k_tile[d * kBlockSize + t] = k[t * stride + d];
  for (std::int64_t t = begin; t < end; ++t) std::copy_n(v + t * stride, dim, v_tile + t * dim);
}

void store_bf16(const PagedKv& kv, std::int64_t block, int head, std::int64_t begin, std::int64_t end,
                const float* k, const float* v, std::int64_t stride) {
  const std::int64_t dim = kv.head_dim;
  BFloat16* k_tile = reinterpret_cast<BFloat16*>(kv.k_tile(block, head));
  BFloat16* v_tile = reinterpret_cast<BFloat16*>(kv.v_tile(block, head));
  for (std::int64_t d = 0; d < dim; d += 2) {
    for (std::int64_t t = begin; t < end; ++t) {
      k_tile[d * kBlockSize + 2 * t] = to_bfloat16(k[t * stride + d]);
      k_tile[d * kBlockSize + 2 * t + 1] = to_bfloat16(k[t * stride + d + 1]);
    }
  }
  for (std::int64_t t = begin; t < end; ++t)
    for (std::int64_t d = 0; d < dim; ++d)
      v_tile[(t / 2 * dim + d) * 2 + t % 2] = to_bfloat16(v[t * stride + d]);
}

}  // namespace

void kv_store(const Context& context, const PagedKv& kv, std::int64_t first_position, std::int64_t num_tokens,
              const float* k, const float* v) {
  const std::int64_t end_position = first_position + num_tokens;
  const std::int64_t first_block = first_position / kBlockSize;
  const std::int64_t blocks = blocks_for(end_position) - first_block;
  const std::int64_t stride = static_cast<std::int64_t>(kv.num_kv_heads) * kv.head_dim;
  const auto store = [&](std::int64_t item) {
    const std::int64_t block = first_block + item / kv.num_kv_heads;
    const int head = static_cast<int>(item % kv.num_kv_heads);
    const std::int64_t start = block * kBlockSize;
    const std::int64_t begin = std::max<std::int64_t>(first_position - start, 0);
    const std::int64_t end = std::min(end_position - start, kBlockSize);
    const std::int64_t offset =
        (start - first_position) * stride + head * static_cast<std::int64_t>(kv.head_dim);
    if (kv.dtype == DType::kF32)
      store_f32(kv, block, head, begin, end, k + offset, v + offset, stride);
    else
      store_bf16(kv, block, head, begin, end, k + offset, v + offset, stride);
  };
  // A single token is too little for a second thread.
  if (blocks == 1) {
    for (std::int64_t item = 0; item < kv.num_kv_heads; ++item) store(item);
  } else {
    context.parallel_for(blocks * kv.num_kv_heads, [&](std::int64_t item, int) { store(item); });
  }
}

}  // namespace seer::cpu
