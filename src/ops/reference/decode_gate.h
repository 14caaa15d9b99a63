// The decode gate in float64, written to be read: it defines what ops/decode_gate.h computes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/decode_gate.h"

namespace seer::reference {

/// As ops/decode_gate.h's: one token's q [num_heads, head_dim] -> [num_kv_heads, dim].
std::vector<double> decode_gate_query(const DecodeGateParams& gate, std::span<const float> q,
                                      std::span<const float> cos, std::span<const float> sin);

/// One whole block's k [64, num_kv_heads, head_dim] -> [num_kv_heads, dim].
std::vector<double> decode_gate_key(const DecodeGateParams& gate, std::span<const float> k,
                                    std::span<const float> cos, std::span<const float> sin);

/// query [num_kv_heads, dim], keys [full blocks, num_kv_heads, dim] -> [num_kv_heads, num_blocks].
std::vector<double> decode_gate_probabilities(std::span<const double> query, std::span<const double> keys,
                                              int num_kv_heads, int dim, std::int64_t num_blocks);

}  // namespace seer::reference
