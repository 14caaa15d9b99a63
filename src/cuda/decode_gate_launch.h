// Launchers of the decode gate's kernels; the public functions have checked the parameters. Internal to
// src/cuda.
#pragma once

#include <cstdint>

#include "cuda/decode_gate.h"

struct CUstream_st;

namespace seer::cuda {

/// Inputs of the query's product that one CTA multiplies.
inline constexpr int kQuerySlice = 32;

/// Slices of a KV head's query.
inline int query_slices(const DecodeGateLayerParams& gate) {
  return gate.num_heads / gate.num_kv_heads * gate.head_dim / kQuerySlice;
}

/// The workspace's parts.
struct DecodeGateScratch {
  std::int32_t* finished;  // [batch, num_kv_heads] CTAs done, zero at launch and at the end
  float* query;            // [batch, num_kv_heads, slices, dim] parts of the query's product
  float* scores;           // [batch, num_kv_heads, 64 * mask_words]
};

void launch_decode_gate_keys(const DecodeGateKeysParams& params, CUstream_st* stream);
/// Takes the keys in and, where a mask is wanted, multiplies the queries.
void launch_decode_gate_token(const DecodeGateTokenParams& params, const DecodeGateScratch& scratch,
                              CUstream_st* stream);
/// Scores and selects in `parts` CTAs a sequence and KV head.
void launch_decode_gate_select(const DecodeGateTokenParams& params, const DecodeGateScratch& scratch,
                               int parts, CUstream_st* stream);

}  // namespace seer::cuda
