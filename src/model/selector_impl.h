// The selectors behind make_selector.
#pragma once

#include <memory>

#include "model/selector.h"

namespace seer {

std::unique_ptr<Selector> make_gate_selector(const SelectorSettings& settings, const ModelConfig& model);
std::unique_ptr<Selector> make_oracle_selector(const SelectorSettings& settings, const ModelConfig& model);

}  // namespace seer
