// What the baseline selectors (sink + local, random) share on the CPU and the GPU.
#pragma once

#include <cstdint>

#include "core/check.h"
#include "ops/select_params.h"

namespace seer {

/// k of the baseline selectors: kNzRatio's, or everything for kDense. Throws Error for another rule.
inline std::int64_t baseline_k(const SelectParams& params) {
  SEER_CHECK(params.rule == SelectRule::kNzRatio || params.rule == SelectRule::kDense,
             "baseline selectors take a share of blocks (nz_ratio), not a threshold or a mass");
  return params.rule == SelectRule::kDense ? params.total_blocks
                                           : top_k_for_nz_ratio(params.value, params.total_blocks);
}

}  // namespace seer
