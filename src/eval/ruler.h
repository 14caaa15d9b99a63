// RULER: the 13 tasks, their samples and their scores (docs/evaluation-ruler.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace seer {

/// How a prediction is compared with the references, lower-cased: the share of them that it contains, or
/// whether it contains any.
enum class RulerMatch { kAll, kPart };
std::string_view name_of(RulerMatch match);  ///< "string_match_all", "string_match_part"

struct RulerTask {
  std::string_view name;
  std::int64_t max_new_tokens;
  RulerMatch match;
};

/// The 13 tasks in the suite's order.
std::span<const RulerTask> ruler_tasks();
/// Throws Error listing the names.
const RulerTask& ruler_task(std::string_view name);

struct RulerSample {
  const RulerTask* task = nullptr;
  std::int64_t index = 0;
  std::string input;                 // goes to the tokenizer as it is
  std::vector<std::string> outputs;  // references
  std::int64_t length = -1;      // tokens with the generated ones, as the sample's maker counts; -1: unknown
  double depth = -1;             // percent of the haystack before the asked needle; -1: unknown, several
  std::string others = "{}";     // JSON that official files carry along
  std::int64_t truncation = -1;  // the same
  std::string source;            // for messages: file:line
  std::string defect;            // what is wrong with the line; nothing else counts then
};

/// The prediction as it is scored: without white space at its ends, and each control character below 0x20 a
/// new line.
std::string postprocess_ruler(std::string_view prediction);

/// Score of one postprocessed prediction, 0 to 1. References must not be empty in number; an empty reference
/// is contained in everything.
double match_ruler(RulerMatch match, std::string_view prediction, std::span<const std::string> references);

/// Mean of samples' scores in percent, rounded to two decimals as Python's round() does: half to even of the
/// exact value.
double ruler_percent(std::span<const double> scores);

}  // namespace seer
