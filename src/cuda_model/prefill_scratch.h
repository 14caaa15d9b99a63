// Device memory of a prefill, reused from call to call.
#pragma once

#include <cstddef>

#include "cuda_model/cuda_transformer_impl.h"

namespace seer {

struct CudaTransformer::PrefillScratch {
  cuda::DeviceArray<std::int32_t> tokens;      // [prompt]
  cuda::DeviceArray<std::int32_t> page_table;  // [blocks of the prompt]
  cuda::DeviceArray<std::int32_t> lengths;     // [chunks][4]: cu_seqlens_q, cu_seqlens_k
  cuda::DeviceArray<std::int32_t> counters;    // attention's workspace
  DeviceRope rope;                             // dynamic NTK past the trained length only

  // Of one chunk.
  DeviceFloats x;          // [tokens, hidden], the residual
  DeviceHalves normed;     // [tokens, hidden]
  DeviceHalves qkv;        // [tokens, q_size + 2 kv_size]
  DeviceHalves attention;  // [tokens, q_size]
  DeviceHalves gate_up;    // [tokens, 2 intermediate]
  DeviceHalves activated;  // [tokens, intermediate]
  DeviceFloats q_pooled, k_pooled;
  DeviceFloats lse;     // [num_heads, tokens]
  DeviceFloats target;  // [num_heads, rows, blocks]
  cuda::DeviceArray<std::byte> target_workspace;
  cuda::DeviceArray<std::uint64_t> mask;      // [num_heads, rows, words]
  cuda::DeviceArray<std::uint64_t> selected;  // [1]
  cuda::DeviceArray<double> threshold;        // [1] and workspace
  DeviceFloats logits, nll;
  DeviceHalves probe_out;  // [tokens, q_size]
  DeviceFloats probe_lse;  // [num_heads, tokens]

  // Of the gate.
  DeviceRope gate_rope;                       // [blocks, dim / 2]
  DeviceHalves gate_q_pooled, gate_k_pooled;  // [rows, heads, pools * head_dim]
  DeviceHalves gate_q;                        // [num_heads, rows, dim]
  DeviceHalves gate_keys;                     // [layers, k_heads, blocks, dim], kept from chunk to chunk
};

}  // namespace seer
