#include "ops/decode_gate.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "cpu/gate/kernels.h"
#include "ops/elementwise.h"

namespace seer {
namespace {

/// Tiles of a head that share a work item: less is not worth another thread.
constexpr std::int64_t kItemTiles = 16;

void check(const DecodeGateParams& gate) {
  SEER_CHECK(gate.num_kv_heads > 0 && gate.num_heads > 0 && gate.num_heads % gate.num_kv_heads == 0,
             "decode gate: expected a multiple of {} heads, found {}", gate.num_kv_heads, gate.num_heads);
  SEER_CHECK(gate.dim > 0 && gate.dim % 2 == 0, "decode gate: expected a positive even size, found {}",
             gate.dim);
}

/// In place on rows of tokens: the norm, where there is one, and the rotation.
void norm_and_rotate(const Context& context, const DecodeGateParams& gate, const float* norm,
                     std::int64_t tokens, const float* cos, const float* sin, float* x) {
  const std::int64_t stride = std::int64_t{gate.num_kv_heads} * gate.dim;
  if (norm != nullptr)
    rms_norm(context, x, norm, kDecodeGateEps, tokens * gate.num_kv_heads, gate.dim, gate.dim, x);
  apply_rope(context, x, cos, sin, tokens, gate.num_kv_heads, gate.dim, stride, x, stride);
}

}  // namespace

void decode_gate_query(const Context& context, const DecodeGateParams& gate, const float* q, const float* cos,
                       const float* sin, float* out) {
  check(gate);
  gate_project(context, q, 1, gate.num_kv_heads, gate.num_heads / gate.num_kv_heads * gate.head_dim,
               gate.q_weight, gate.num_kv_heads, gate.dim, out);
  norm_and_rotate(context, gate, gate.q_norm, 1, cos, sin, out);
}

void decode_gate_keys(const Context& context, const DecodeGateParams& gate, const float* k,
                      std::int64_t num_blocks, const float* cos, const float* sin, float* out) {
  check(gate);
  const int heads = gate.num_kv_heads, inner = pool_count(gate.k_pools) * gate.head_dim;
  Buffer<float> pooled(num_blocks * heads * inner);
  block_pool(context, k, num_blocks * kBlockSize, heads, gate.head_dim, std::int64_t{heads} * gate.head_dim,
             gate.k_pools, pooled.data());
  gate_project(context, pooled.data(), num_blocks, heads, inner, gate.k_weight, heads, gate.dim, out);
  norm_and_rotate(context, gate, gate.k_norm, num_blocks, cos, sin, out);
}

void CompressedKeys::append(const float* keys, std::int64_t num_blocks) {
  for (std::int64_t i = 0; i < num_blocks; ++i, ++num_blocks_) {
    const std::int64_t tile = num_blocks_ / kTileBlocks;
    if (tile == static_cast<std::int64_t>(tiles_.size()))
      tiles_.emplace_back(num_kv_heads_ * dim_ * kTileBlocks);
    float* column = tiles_[static_cast<std::size_t>(tile)].data() + num_blocks_ % kTileBlocks;
    for (std::int64_t d = 0; d < num_kv_heads_ * dim_; ++d)
      column[d * kTileBlocks] = keys[i * num_kv_heads_ * dim_ + d];
  }
}

void decode_gate_probabilities(const Context& context, const float* query, const CompressedKeys& keys,
                               std::int64_t num_blocks, float* out) {
  constexpr std::int64_t kTile = CompressedKeys::kTileBlocks;
  const std::int64_t full = keys.num_blocks(), tiles = (full + kTile - 1) / kTile;
  SEER_CHECK(num_blocks > 0 && full <= num_blocks, "decode gate: found {} keys for {} blocks", full,
             num_blocks);
  const cpu::GateKernels& kernels = cpu::gate_kernels(context.isa());
  const int heads = keys.num_kv_heads(), dim = keys.dim();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  context.parallel_ranges(heads * tiles, kItemTiles, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t item = begin; item < end; ++item) {
      const int head = static_cast<int>(item / tiles);
      const std::int64_t tile = item % tiles, first = tile * kTile;
      kernels.multiply(query + head * dim, dim, 1, dim, keys.tile(tile, head), kTile,
                       std::min(kTile, full - first), scale, out + head * num_blocks + first, num_blocks);
    }
  });
  for (int head = 0; head < heads; ++head)
    std::fill(out + head * num_blocks + full, out + (head + 1) * num_blocks, 0.0f);
  causal_softmax(context, out, heads, 1, num_blocks - 1, num_blocks);
}

}  // namespace seer
