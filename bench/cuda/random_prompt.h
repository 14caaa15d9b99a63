// One sequence of random queries, keys and values, to time prefill on.
#pragma once

#include <cstdint>

#include "attention_bench.h"
#include "cuda/attention.h"
#include "cuda/device_array.h"

namespace seer::cuda {

struct RandomPrompt {
  RandomPrompt(const AttentionBenchOptions& options, std::int64_t length);
  /// Contiguous, dense, pointing to the arrays below.
  PrefillAttentionParams params();
  double bytes() const { return static_cast<double>(q.bytes() + k.bytes() + v.bytes() + out.bytes()); }

  std::int64_t length;
  int heads, kv_heads, head_dim;
  DType dtype;
  DeviceArray<std::uint16_t> q, out;  // [length, heads, head_dim]
  DeviceArray<std::uint16_t> k, v;    // [length, kv_heads, head_dim]
  DeviceArray<std::int32_t> cu_seqlens, workspace;
};

}  // namespace seer::cuda
