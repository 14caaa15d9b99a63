// Made-up samples of the 13 RULER tasks, of any length.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eval/ruler.h"
#include "eval/ruler_text.h"
#include "io/tokenizer.h"

namespace seer {

/// A sample before it has a size: the haystack grows by units, questions and answers stay. The same size
/// gives the same text.
struct RulerDraft {
  std::function<std::string(std::int64_t units)> input;
  std::vector<std::string> outputs;
  double depth = -1;          // RulerSample::depth
  std::int64_t smallest = 0;  // units below which the task makes no sense
};

/// Drafts by family; `length` in tokens only scales what a task has of its own (vocabulary, repetitions).
/// Throws Error when `task` is of another family.
RulerDraft draft_needles(const RulerTask& task, std::uint64_t seed, const RulerHaystack& haystack);  // niah_*
RulerDraft draft_variables(std::uint64_t seed);                                                      // vt
RulerDraft draft_common_words(std::uint64_t seed, std::int64_t length);                              // cwe
RulerDraft draft_frequent_words(std::uint64_t seed, std::int64_t length);                            // fwe
RulerDraft draft_questions(const RulerTask& task, std::uint64_t seed);                               // qa_*

/// Below this many tokens tasks repeat less and carry shorter examples.
inline constexpr std::int64_t kRulerShortLength = 4096;

/// The sentence that niah_single_1 and vt hide their needles in, over and over.
inline constexpr const char* kRulerNoise =
    "The tide goes out. A door is left open. Nobody is at home. The tide comes in.\n";

/// The largest number of units, `smallest` or more, for which `tokens_of` is at most `limit` while for one
/// more it is not. Throws Error naming `label` when already `smallest` does not fit.
std::int64_t largest_fitting(std::int64_t smallest, std::int64_t limit,
                             const std::function<std::int64_t(std::int64_t units)>& tokens_of,
                             const std::string& label);

/// Sample `index` of a task: its input, start token included, and the generated tokens are together as close
/// to `length` as the haystack's units allow, and never more. task, length, index and seed alone decide.
RulerSample generate_ruler_sample(const RulerTask& task, std::int64_t length, std::int64_t index,
                                  std::uint64_t seed, const RulerHaystack& haystack,
                                  const Tokenizer& tokenizer);

}  // namespace seer
