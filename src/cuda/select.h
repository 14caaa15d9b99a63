// Block masks on the GPU from probabilities in memory and by the baselines' rules: the same masks as
// ops/select.h. Every pointer is device memory; calls are asynchronous on `stream`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/attention.h"
#include "ops/select_params.h"

namespace seer::cuda {

struct SelectBlocksParams {
  const float* scores = nullptr;  // [heads, rows, stride]: probabilities; for kNzRatio any scores
  std::int64_t stride = 0;        // at least first_row + rows
  int heads = 0;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;          // first_row + rows <= kMaxSelectBlocks of gate.h
  SelectParams select;            // every rule but kDense
  const double* value = nullptr;  // takes the place of select.value (not for kNzRatio); nullptr: not given
  /// Out: [heads, rows, mask_words], bit j % 64 of word j / 64 for key block j; every word is written.
  std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;
  std::uint64_t* selected_blocks = nullptr;  // the number of blocks kept is added; nullptr: not wanted
};

/// Throws Error on parameters outside the stated set and when CUDA reports an error; so do the others.
void select_blocks(const SelectBlocksParams& params, Stream stream);

/// The first block and a band that ends at the diagonal; see ops/select.h.
void select_sink_local(const SelectParams& select, int heads, std::int64_t first_row, std::int64_t rows,
                       std::uint64_t* mask, std::int64_t mask_words, std::uint64_t* selected_blocks,
                       Stream stream);

/// The diagonal block and others drawn by (seed, layer, head, row); see ops/select.h.
void select_random(const SelectParams& select, std::uint64_t seed, int layer, int heads,
                   std::int64_t first_row, std::int64_t rows, std::uint64_t* mask, std::int64_t mask_words,
                   std::uint64_t* selected_blocks, Stream stream);

/// Bytes of workspace that threshold_for_density needs, 8-byte aligned; what they hold does not matter.
inline constexpr std::size_t kThresholdWorkspace = 32;

/// Writes to *threshold the value above which the share `density` of the causal blocks lies, rows without any
/// counting one: 40 steps of bisection between 1e-12 and 1 in the logarithm. probabilities [heads, rows,
/// stride].
void threshold_for_density(const float* probabilities, std::int64_t stride, int heads, std::int64_t first_row,
                           std::int64_t rows, double density, double* threshold, void* workspace,
                           Stream stream);

}  // namespace seer::cuda
