// The prefill gate on the GPU: projections of pooled queries and keys, and scores to masks in one kernel.
// Every pointer is device memory; calls are asynchronous on `stream`; same inputs, same bits.
//
// Source: SeerAttention, arXiv 2410.13276, section 3. Schedule and numbers: docs/kernels/hopper_gate.md.
#pragma once

#include <cstdint>

#include "cuda/attention.h"
#include "ops/select_params.h"

namespace seer::cuda {

/// out = rope(x * w), accumulated in float32. Head h reads x head h / (heads / x_heads).
struct GateProjectParams {
  const void* x = nullptr;  // bf16 [n, x_heads, in_dim]
  std::int64_t n = 0;
  int x_heads = 0;
  int in_dim = 0;              // a multiple of 64 up to 512
  const void* w = nullptr;     // bf16 [heads, in_dim, out_dim]
  int heads = 0;               // a multiple of x_heads
  int out_dim = 0;             // a multiple of 16 up to 256
  const float* cos = nullptr;  // [n, out_dim / 2]: rows of these blocks
  const float* sin = nullptr;
  void* out = nullptr;  // bf16, element (i, h, d) at out[h * out_head_stride + i * out_dim + d]
  std::int64_t out_head_stride = 0;
};

/// Throws Error on parameters outside the stated set and when CUDA reports an error.
void gate_project(const GateProjectParams& params, Stream stream);

/// Most key blocks of a row that gate_select and select_blocks take: 262144 tokens.
inline constexpr std::int64_t kMaxSelectBlocks = 4096;

/// Scores q . k * dim^-0.5 of block rows [first_row, first_row + rows) against key blocks up to each row's
/// own, the softmax, and the blocks that `select` keeps.
struct GateSelectParams {
  /// bf16, element (h, i, d) at q[h * q_head_stride + i * q_row_stride + d], i < rows.
  const void* q = nullptr;
  std::int64_t q_head_stride = 0;
  std::int64_t q_row_stride = 0;
  const void* k = nullptr;  // bf16, element (h, j, d) at k[h * k_head_stride + j * dim + d]
  std::int64_t k_head_stride = 0;
  int heads = 0;
  int k_heads = 0;  // query head h uses key head h / (heads / k_heads)
  int dim = 0;      // gate_hidden_size, a multiple of 16 up to 256
  std::int64_t first_row = 0;
  std::int64_t rows = 0;  // first_row + rows <= kMaxSelectBlocks
  SelectParams select;    // every rule but kDense
  /// Out: [heads, rows, mask_words], bit j % 64 of word j / 64 for key block j; every word is written.
  std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;
  std::uint64_t* selected_blocks = nullptr;  // the number of blocks kept is added; nullptr: not wanted
};

/// Throws Error on parameters outside the stated set and when CUDA reports an error. kThreshold compares
/// scores in float32 where dim is 64 or 128. Other rules, and other dims, tell scores apart to 2^-23 of their
/// row's range or, for rows longer than 1024 blocks, in half precision at least.
void gate_select(const GateSelectParams& params, Stream stream);

}  // namespace seer::cuda
