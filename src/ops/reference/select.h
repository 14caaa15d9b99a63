// Block selection written from its definition: what ops/select.h must choose.
#pragma once

#include <span>
#include <vector>

#include "ops/select.h"

namespace seer::reference {

/// Selected key blocks of one block row of a prompt, by its scores [row + 1] (for kThreshold and kTopP:
/// probabilities): 1 where selected. Ties go to the later column; an empty row gets its diagonal.
std::vector<std::uint8_t> select_row(std::span<const float> scores, const SelectParams& params);

}  // namespace seer::reference
