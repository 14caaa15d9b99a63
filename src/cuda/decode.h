// What the host hands the decode kernels, and their launchers. Internal to src/cuda.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace seer::cuda {

/// Most parts of a list.
inline constexpr int kMaxSplits = 64;

/// Kernel arguments; fields as in DecodeAttentionParams.
struct DecodeArguments {
  const void* q;
  void* out;
  float* lse;
  const std::int32_t* page_table;
  const std::int32_t* seqlens_k;
  const std::uint64_t* mask;  // nullptr: dense
  float* partial_out;         // [splits, batch, num_heads, head_dim], each part normalised
  float* partial_lse;         // [splits, batch, num_heads], log2 units
  std::int32_t* finished;     // [batch, num_kv_heads] parts done, zero at launch and at the end
  std::int64_t q_batch_stride;
  std::int64_t q_head_stride;
  std::int64_t out_batch_stride;
  std::int64_t out_head_stride;
  std::int64_t page_table_stride;
  std::int64_t mask_words;
  int splits;
  int batch;
  int num_heads;
  int num_kv_heads;
  float scale;
};

/// k and v [page][head][token][dim] as maps of panels, as in PrefillMaps.
struct DecodeMaps {
  CUtensorMap k, v;
};

template <class T, int kHeadDim>
void launch_decode(const DecodeMaps& maps, const DecodeArguments& arguments, CUstream_st* stream);

}  // namespace seer::cuda
