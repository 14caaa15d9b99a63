#include "cuda/select.h"

#include "core/check.h"
#include "cuda/argument_checks.h"
#include "cuda/gate_launch.h"
#include "ops/select_baseline.h"

namespace seer::cuda {
namespace {

BaselineMask baseline(const char* name, const SelectParams& select, int heads, std::int64_t first_row,
                      std::int64_t rows, std::uint64_t* mask, std::int64_t mask_words,
                      std::uint64_t* selected_blocks) {
  check_mask(name, first_row, rows, mask, mask_words);
  return {.heads = heads,
          .first_row = first_row,
          .rows = rows,
          .k = baseline_k(select),
          .dense_from = first_dense_row(select),
          .mask = mask,
          .mask_words = mask_words,
          .selected_blocks = selected_blocks};
}

}  // namespace

void select_blocks(const SelectBlocksParams& p, Stream stream) {
  check_rule("select_blocks", p.select);
  check_mask("select_blocks", p.first_row, p.rows, p.mask, p.mask_words);
  check_row_length("select_blocks", p.first_row + p.rows);
  SEER_CHECK(p.scores != nullptr && p.stride >= p.first_row + p.rows,
             "select_blocks: scores must be given, with a row stride of at least {}, got {}",
             p.first_row + p.rows, p.stride);
  SEER_CHECK(p.value == nullptr || p.select.rule != SelectRule::kNzRatio,
             "select_blocks: nz_ratio takes no value from the device");
  if (p.heads * p.rows > 0) launch_select_blocks(p, static_cast<CUstream_st*>(stream));
}

void select_sink_local(const SelectParams& select, int heads, std::int64_t first_row, std::int64_t rows,
                       std::uint64_t* mask, std::int64_t mask_words, std::uint64_t* selected_blocks,
                       Stream stream) {
  const BaselineMask p =
      baseline("select_sink_local", select, heads, first_row, rows, mask, mask_words, selected_blocks);
  if (heads * rows > 0) launch_select_sink_local(p, static_cast<CUstream_st*>(stream));
}

void select_random(const SelectParams& select, std::uint64_t seed, int layer, int heads,
                   std::int64_t first_row, std::int64_t rows, std::uint64_t* mask, std::int64_t mask_words,
                   std::uint64_t* selected_blocks, Stream stream) {
  const BaselineMask p =
      baseline("select_random", select, heads, first_row, rows, mask, mask_words, selected_blocks);
  if (heads * rows > 0) launch_select_random(p, seed, layer, static_cast<CUstream_st*>(stream));
}

void threshold_for_density(const float* probabilities, std::int64_t stride, int heads, std::int64_t first_row,
                           std::int64_t rows, double density, double* threshold, void* workspace,
                           Stream stream) {
  SEER_CHECK(probabilities != nullptr && threshold != nullptr && workspace != nullptr,
             "threshold_for_density: probabilities, threshold and workspace must be given");
  SEER_CHECK(
      heads > 0 && rows > 0 && first_row >= 0 && stride >= first_row + rows,
      "threshold_for_density: heads and rows must be positive and the stride at least first_row + rows, "
      "got {}, {}, {} and {}",
      heads, rows, stride, first_row + rows);
  launch_threshold_for_density(probabilities, stride, heads, first_row, rows, density, threshold, workspace,
                               static_cast<CUstream_st*>(stream));
}

}  // namespace seer::cuda
