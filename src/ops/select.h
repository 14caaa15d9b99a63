// Block selection rules: from scores of block rows to a BlockMask. Every rule gives an empty row its diagonal
// block.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/block_mask.h"

namespace seer {

/// How many blocks a row of scores keeps. kResidual is a threshold that knows what a row has already: the
/// error of leaving mass out grows with its square, so the next block's worth is its own mass times all that
/// is missing. A row of one strong block stops at once where a plain threshold goes on, and a flat row gets
/// more.
enum class SelectRule {
  kDense,      // all causal blocks
  kNzRatio,    // top-k per row, k = max(1, int((1 - sqrt(1 - value)) * num_blocks)) for every row
  kThreshold,  // softmax score strictly above value
  kTopP,       // fewest best blocks of a row whose softmax mass reaches value
  kResidual,   // best first, while a block's softmax score times the mass not yet kept is above value
};

struct SelectParams {
  SelectRule rule = SelectRule::kDense;
  double value = 1.0;
  bool last_block_dense = false;  // the last two block rows of the prompt are dense
  std::int64_t total_blocks = 0;  // n of the whole prompt, for kNzRatio's k and last_block_dense
};

/// k of kNzRatio, computed in double as the reference does.
std::int64_t top_k_for_nz_ratio(double nz_ratio, std::int64_t num_blocks);

/// Fills `mask` (already shaped: heads, first_row, rows) from scores [heads, rows, stride]: for kNzRatio any
/// scores (ties go to the later column), for the others rows that are probabilities (causal_softmax
/// or the pooled target).
void select_blocks(const Context& context, const float* scores, std::int64_t stride,
                   const SelectParams& params, BlockMask& mask);

/// Sink + local baseline: the first block and a band that ends at the diagonal, `k` blocks per row in all
/// (k by the nz_ratio rule), so that every row has as many blocks as top-k would give it.
void select_sink_local(const SelectParams& params, BlockMask& mask);

/// Random baseline: the diagonal block and k - 1 further causal blocks, by a counter-based generator, so that
/// (seed, layer, head, absolute row) alone decide.
void select_random(const SelectParams& params, std::uint64_t seed, int layer, BlockMask& mask);

}  // namespace seer
