// How tables and figures name a selector with its amount.
#pragma once

#include <string>
#include <string_view>

namespace seer {

/// "dense", "gate, density 0.2", "gate, nz_ratio 0.2", "oracle, top-p 0.9".
std::string setting_label(std::string_view selector, std::string_view rule, double value);

}  // namespace seer
