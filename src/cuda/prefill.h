// What the host hands the prefill kernels, and their launchers. Internal to src/cuda.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace seer::cuda {

/// Query tiles of a CTA where they share keys.
inline constexpr int kSharedTiles = 2;

/// Kernel arguments; fields as in PrefillAttentionParams.
struct PrefillArguments {
  void* out;
  float* lse;
  const std::int32_t* cu_seqlens_q;
  const std::int32_t* cu_seqlens_k;
  const std::int32_t* page_table;  // nullptr: contiguous
  const std::uint64_t* mask;       // nullptr: dense
  std::int32_t* counters;          // items taken, CTAs done; zero at launch and at the end
  std::int64_t out_token_stride;
  std::int64_t out_head_stride;
  std::int64_t total_q;
  std::int64_t page_table_stride;
  std::int64_t mask_words;
  int max_rows;
  int mask_heads;
  int batch;
  int num_heads;
  int num_kv_heads;
  float scale;
  // With the pooled target only.
  float* target;          // [num_heads, max_rows, target_stride]
  float* target_scratch;  // [multiprocessors, kSharedTiles, 2, target_stride, 64]
  std::int64_t target_stride;
};

/// q [token][head][dim], k and v [page][head][token][dim] as five-dimensional maps of panels: coordinates
/// (0, token, panel of 64 columns, head, page), box 64 tokens x all panels of one head, swizzled by 128
/// bytes.
struct PrefillMaps {
  CUtensorMap q, k, v;
};

/// Launches the kernel for the element type, head dimension and number of query tiles that share keys;
/// kTarget, with shared tiles only, dense: makes the pooled target too.
template <class T, int kHeadDim, int kTiles, bool kTarget = false>
void launch_prefill(const PrefillMaps& maps, const PrefillArguments& arguments, CUstream_st* stream);

}  // namespace seer::cuda
