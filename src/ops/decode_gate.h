// The decode gate: the query of one token and one compressed key a block predict which blocks of the KV cache
// a decoding step needs, for each KV head. Source: SeerAttention-R, arXiv 2506.08889, section 3; semantics as
// the reference implementation trains them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "ops/gate.h"

namespace seer {

/// One layer's gate; weights in float32, nullptr for norms that it does not have.
struct DecodeGateParams {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int dim = 0;           // of the gate's queries and keys, even
  unsigned k_pools = 0;  // PoolSet
  /// [num_kv_heads, num_heads / num_kv_heads * head_dim, dim]: the queries of a group, one after another, as
  /// one input; the sum over the group is a part of the product.
  const float* q_weight = nullptr;
  const float* k_weight = nullptr;  // [num_kv_heads, pools * head_dim, dim]
  const float* q_norm = nullptr;    // [dim]
  const float* k_norm = nullptr;    // [dim]
};

/// RMSNorm's epsilon in the gate, whatever the model's is.
inline constexpr float kDecodeGateEps = 1e-6f;

/// out [num_kv_heads, dim] = RoPE(RMSNorm(q * q_weight)) of one token's q [num_heads, head_dim] before the
/// model's RoPE; cos, sin [dim / 2] of the token's position.
void decode_gate_query(const Context& context, const DecodeGateParams& gate, const float* q, const float* cos,
                       const float* sin, float* out);

/// out [num_blocks, num_kv_heads, dim] = RoPE(RMSNorm(pool(k) * k_weight)) of whole blocks: k [64 *
/// num_blocks, num_kv_heads, head_dim] before RoPE, cos, sin [num_blocks, dim / 2].
void decode_gate_keys(const Context& context, const DecodeGateParams& gate, const float* k,
                      std::int64_t num_blocks, const float* cos, const float* sin, float* out);

/// The compressed keys of one layer and sequence, in tiles of 64 blocks that never move as the sequence
/// grows. A tile is [num_kv_heads][dim][64]: a query times a tile is a row times a matrix.
class CompressedKeys {
 public:
  CompressedKeys(int num_kv_heads, int dim) : num_kv_heads_(num_kv_heads), dim_(dim) {}

  /// Appends keys [num_blocks, num_kv_heads, dim].
  void append(const float* keys, std::int64_t num_blocks);
  void clear() { num_blocks_ = 0; }

  int num_kv_heads() const { return num_kv_heads_; }
  int dim() const { return dim_; }
  std::int64_t num_blocks() const { return num_blocks_; }
  /// Blocks [64 * tile, 64 * tile + 64) of a head; columns from num_blocks() on hold anything.
  const float* tile(std::int64_t tile, int kv_head) const {
    return tiles_[static_cast<std::size_t>(tile)].data() + kv_head * dim_ * kTileBlocks;
  }
  float at(std::int64_t block, int kv_head, int d) const {
    return tile(block / kTileBlocks, kv_head)[d * kTileBlocks + block % kTileBlocks];
  }

  static constexpr std::int64_t kTileBlocks = 64;

 private:
  int num_kv_heads_, dim_;
  std::int64_t num_blocks_ = 0;
  std::vector<Buffer<float>> tiles_;
};

/// out [num_kv_heads, num_blocks] = softmax over blocks of query . key * dim^-0.5; query [num_kv_heads, dim].
/// Blocks that have no key yet (at the end, not full) take part with a key of zeros.
void decode_gate_probabilities(const Context& context, const float* query, const CompressedKeys& keys,
                               std::int64_t num_blocks, float* out);

}  // namespace seer
