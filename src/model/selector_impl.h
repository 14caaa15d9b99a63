// The selectors behind make_selector.
#pragma once

#include <memory>

#include "model/selector.h"

namespace seer {

/// The rule for a prompt of `total_tokens`. kAdaptive becomes the calibrated threshold; `gate` holds its
/// table.
SelectParams resolve(const SparsityOptions& options, std::int64_t total_tokens, const Gate* gate);

std::unique_ptr<Selector> make_gate_selector(const SparsityOptions& options, const ModelConfig& model,
                                             const Gate& gate);
std::unique_ptr<Selector> make_oracle_selector(const SparsityOptions& options, const ModelConfig& model);

}  // namespace seer
