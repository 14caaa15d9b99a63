#include "ops/reference/select.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace seer::reference {

std::vector<std::uint8_t> select_row(std::span<const float> scores, const SelectParams& params) {
  const auto n = static_cast<std::int64_t>(scores.size());
  const std::int64_t row = n - 1;
  if (params.rule == SelectRule::kDense || (params.last_block_dense && row >= params.total_blocks - 2))
    return std::vector<std::uint8_t>(scores.size(), 1);

  std::vector<std::size_t> best(scores.size());  // columns, best first
  std::iota(best.begin(), best.end(), 0);
  std::sort(best.begin(), best.end(), [&](std::size_t a, std::size_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a > b;
  });

  const double ratio = 1.0 - std::sqrt(1.0 - params.value);
  const std::int64_t k =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(ratio * static_cast<double>(params.total_blocks)));
  std::vector<std::uint8_t> selected(scores.size(), 0);
  double mass = 0;
  std::int64_t taken = 0;
  for (const std::size_t column : best) {
    const bool wanted = params.rule == SelectRule::kNzRatio     ? taken < k
                        : params.rule == SelectRule::kThreshold ? scores[column] > params.value
                        : params.rule == SelectRule::kResidual  ? scores[column] * (1 - mass) > params.value
                                                                : mass < params.value;
    if (!wanted) break;
    selected[column] = 1;
    mass += scores[column];
    ++taken;
  }
  if (taken == 0) selected.back() = 1;
  return selected;
}

}  // namespace seer::reference
