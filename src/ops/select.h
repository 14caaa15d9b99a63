// Block selection rules: from scores of block rows to a BlockMask. Every rule gives an empty row its diagonal
// block.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/block_mask.h"
#include "ops/select_params.h"

namespace seer {

/// Fills `mask` (already shaped: heads, first_row, rows) from scores [heads, rows, stride]: for kNzRatio any
/// scores (ties go to the later column), for the others rows that are probabilities (causal_softmax
/// or the pooled target).
void select_blocks(const Context& context, const float* scores, std::int64_t stride,
                   const SelectParams& params, BlockMask& mask);

/// The `k` best blocks of every row (ties go to the later column), all of a row that has no more. Scores as
/// above; `mask` shaped and empty.
void select_top_k(const Context& context, const float* scores, std::int64_t stride, std::int64_t k,
                  BlockMask& mask);

/// Sink + local baseline: the first block and a band that ends at the diagonal, `k` blocks per row in all
/// (k by the nz_ratio rule), so that every row has as many blocks as top-k would give it.
void select_sink_local(const SelectParams& params, BlockMask& mask);

/// Random baseline: the diagonal block and k - 1 further causal blocks, by a counter-based generator, so that
/// (seed, layer, head, absolute row) alone decide.
void select_random(const SelectParams& params, std::uint64_t seed, int layer, BlockMask& mask);

}  // namespace seer
