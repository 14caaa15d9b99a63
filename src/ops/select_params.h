// Which blocks a row of scores keeps: the rules, for the CPU and the GPU alike.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

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
inline std::int64_t top_k_for_nz_ratio(double nz_ratio, std::int64_t num_blocks) {
  const double ratio = 1.0 - std::sqrt(1.0 - nz_ratio);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(ratio * static_cast<double>(num_blocks)));
}

/// Block rows of the whole map from this one on are dense.
inline std::int64_t first_dense_row(const SelectParams& params) {
  if (params.rule == SelectRule::kDense) return 0;
  return params.last_block_dense ? params.total_blocks - 2 : std::numeric_limits<std::int64_t>::max();
}

}  // namespace seer
