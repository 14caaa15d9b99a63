// Attention of single queries over a paged KV cache: the schedule, and the interface of its bodies.
// docs/kernels/cpu_decode.md tells how it works and what was measured.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/attention.h"

namespace seer::cpu {

/// As seer::attention_decode, for checked params.
void attention_decode(const Context& context, const DecodeAttentionParams& params);

/// Some key blocks of one sequence and KV head, for all query heads of its group.
struct DecodeItem {
  const PagedKv* kv = nullptr;
  int kv_head = 0;
  int group = 0;
  const float* q = nullptr;              // [group, head_dim], times scale * log2(e)
  const std::int32_t* blocks = nullptr;  // the blocks; nullptr: those from `first` on
  std::int64_t first = 0;
  std::int64_t count = 0;
  const std::byte* next = nullptr;  // the K tile that this thread reads after this item, or nullptr
  float* partial = nullptr;         // [group] of DecodePartial, 64-byte aligned
};

/// A head's result over an item's blocks, in floats: [head_dim] sum of p V, [kLanes] partial sums of p = 2^(s
/// - m), and m, the reference maximum.
struct DecodePartial {
  static constexpr std::int64_t kLanes = 16;
  static constexpr std::int64_t size(std::int64_t head_dim) { return head_dim + 2 * kLanes; }
};

struct DecodeKernels {
  void (*attend)(const DecodeItem& item);
  /// out [head_dim] of `count` partials `stride` floats apart, in their order.
  void (*combine)(const float* partials, std::int64_t stride, std::int64_t count, std::int64_t head_dim,
                  float* out);
};

extern const DecodeKernels kDecodeKernelsPortable;
extern const DecodeKernels kDecodeKernelsAvx2;
extern const DecodeKernels kDecodeKernelsAvx512;

}  // namespace seer::cpu
