#include "eval/setting_label.h"

#include <fmt/format.h>

namespace seer {

std::string setting_label(std::string_view selector, std::string_view rule, double value) {
  if (selector == "dense") return "dense";
  const std::string_view amount = rule == "adaptive" ? "density" : rule == "top_p" ? "top-p" : rule;
  return fmt::format("{}, {} {:.4g}", selector, amount, value);
}

}  // namespace seer
