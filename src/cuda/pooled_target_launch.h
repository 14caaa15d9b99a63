// What the host hands the pooled target's kernel, and its launcher. Internal to src/cuda.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace seer::cuda {

/// Query tiles of a CTA, which share the keys that it fetches.
inline constexpr int kTargetTiles = 4;

/// Kernel arguments; fields as in PooledTargetParams.
struct TargetArguments {
  const float* lse;
  const std::int32_t* page_table;
  float* target;
  std::int64_t stride;
  std::int64_t num_tokens;
  int rows;         // ceil(num_tokens / 64)
  int first_block;  // q_offset / 64
  int num_kv_heads;
  int group;  // query heads of a KV head
  float scale;
};

/// q [head][token][dim] and k [page][head][token][dim] as panel_map() makes them.
struct TargetMaps {
  CUtensorMap q, k;
};

/// CTAs a KV head.
constexpr std::int64_t target_items(const TargetArguments& arg) {
  return (std::int64_t{arg.rows} * arg.group + kTargetTiles - 1) / kTargetTiles;
}

/// Launches the kernel for the element type and head dimension.
template <class T, int kHeadDim>
void launch_pooled_target(const TargetMaps& maps, const TargetArguments& arguments, CUstream_st* stream);

}  // namespace seer::cuda
