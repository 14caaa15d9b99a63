#include "cuda/decode_gate.h"

#include "core/check.h"
#include "cuda/argument_checks.h"
#include "cuda/decode_gate_launch.h"
#include "ops/gate.h"

namespace seer::cuda {
namespace {

void check_gate(const DecodeGateLayerParams& gate) {
  check_dtype("decode_gate", gate.dtype);
  check_head_dim("decode_gate", gate.head_dim);
  SEER_CHECK(gate.num_kv_heads > 0 && gate.num_kv_heads < 65536 && gate.num_heads > 0 &&
                 gate.num_heads % gate.num_kv_heads == 0 && gate.num_heads / gate.num_kv_heads <= 16,
             "decode_gate: num_heads must be 1 to 16 times num_kv_heads, got {} and {}", gate.num_heads,
             gate.num_kv_heads);
  check_hidden_size("decode_gate", gate.dim);
  SEER_CHECK(gate.k_pools > 0 && gate.k_pools <= (kPoolMax | kPoolMin | kPoolAvg),
             "decode_gate: k_pools must be a set of max, min and avg, got {}", gate.k_pools);
  check_pointer("decode_gate", "k_weight", gate.k_weight);
  SEER_CHECK(gate.cos != nullptr && gate.sin != nullptr, "decode_gate: cos and sin must be given");
}

}  // namespace

void decode_gate_keys(const DecodeGateKeysParams& p, Stream stream) {
  check_gate(p.gate);
  check_pointer("decode_gate", "k", p.k);
  check_pointer("decode_gate", "keys", p.keys);
  SEER_CHECK(p.first_block >= 0 && p.num_blocks >= 0 && p.num_blocks < (std::int64_t{1} << 31) &&
                 p.first_block + p.num_blocks <= p.capacity,
             "decode_gate: the keys have room for {} blocks, got {} from {} on", p.capacity, p.num_blocks,
             p.first_block);
  if (p.num_blocks > 0) launch_decode_gate_keys(p, static_cast<CUstream_st*>(stream));
}

void decode_gate(const DecodeGateTokenParams& p, Stream stream) {
  check_gate(p.gate);
  SEER_CHECK(p.batch >= 0 && p.batch < 65536, "decode_gate: batch must be 0 to 65535, got {}", p.batch);
  if (p.batch == 0) return;
  SEER_CHECK(p.layer >= 0, "decode_gate: layer must not be negative, got {}", p.layer);
  SEER_CHECK(p.sequences != nullptr && p.positions != nullptr && p.qkv != nullptr,
             "decode_gate: sequences, positions and qkv must be given");
  const auto on = static_cast<CUstream_st*>(stream);
  if (p.mask == nullptr) {
    launch_decode_gate_take_keys(p, on);
    return;
  }
  check_pointer("decode_gate", "q_weight", p.gate.q_weight);
  SEER_CHECK(p.mask_words > 0 && p.mask_words * 64 <= kMaxSelectBlocks,
             "decode_gate: mask_words must be 1 to {}, got {}", kMaxSelectBlocks / 64, p.mask_words);
  SEER_CHECK(p.token_budget == 0 || p.token_budget >= 64,
             "decode_gate: token_budget must be 0 or at least 64, got {}", p.token_budget);
  launch_decode_gate_token(p, on);
}

}  // namespace seer::cuda
