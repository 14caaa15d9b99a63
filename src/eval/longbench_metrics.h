// The metrics of LongBench, each 0 to 1. They agree with the published harness (its metrics.py with the
// packages rouge 1.0.1 and fuzzywuzzy 0.18 over python-Levenshtein) to the last bit but for the order of a
// few sums.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/longbench_tasks.h"

namespace seer {

/// F1 of the words that prediction and answer share, in lower case, without ASCII punctuation and articles.
double qa_f1(std::string_view prediction, std::string_view answer);

/// ROUGE-L in the summary-level form of the package `rouge`: sentences end at every full stop, and counts are
/// of distinct words. 0 where the package raises: for an empty text, and when the way through a pair of
/// sentences' table takes more steps than Python's recursion limit leaves.
double rouge_l(std::string_view prediction, std::string_view answer);

/// 1 / (number of classes named in the prediction) if the answer is one of them.
double classification_score(std::string_view prediction, std::string_view answer,
                            std::span<const std::string> classes);

/// The share of the numbers in the prediction that are the answer's.
double count_score(std::string_view prediction, std::string_view answer);

/// count_score against the number in the answer's first "Paragraph N". Throws Error when it has none.
double retrieval_score(std::string_view prediction, std::string_view answer);

/// Edit similarity, in hundredths, of the answer and the prediction's first line of code.
double code_similarity(std::string_view prediction, std::string_view answer);

/// What is scored of a prediction: all of it, or its first line for the tasks that ask for one line.
std::string_view scored_part(const LongBenchTask& task, std::string_view prediction);

/// The task's metric against the best of the answers. All texts are valid UTF-8; `classes` matters to
/// classification alone. Throws Error when the answers or the classes are none that the metric can score.
double longbench_score(const LongBenchTask& task, std::string_view prediction,
                       std::span<const std::string> answers, std::span<const std::string> classes);

}  // namespace seer
