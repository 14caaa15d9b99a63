// RULER's predictions and scores in the layout of its harness.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/ruler.h"

namespace seer {

/// One line of pred/TASK.jsonl.
struct RulerPrediction {
  std::string source;  // file:line
  std::int64_t index = 0;
  std::string prediction;  // as the model wrote it
  std::vector<std::string> outputs;
  std::string defect;  // what is wrong with the line; nothing else counts then
};

/// The line that the harness writes for a prediction, with its end.
std::string ruler_prediction_line(const RulerSample& sample, std::string_view prediction);
/// Throws Error when the file cannot be read or has no line.
std::vector<RulerPrediction> read_ruler_predictions(const std::string& path);

/// Score of one task under the harness' rules.
struct RulerTaskScore {
  const RulerTask* task = nullptr;
  double score = 0;  // percent, two decimals
  std::int64_t nulls = 0;
  std::int64_t samples = 0;
};
/// Of the predictions without defect; at least one.
RulerTaskScore score_ruler_task(const RulerTask& task, std::span<const RulerPrediction> predictions);

/// summary.csv and submission.csv; tasks in the suite's order.
std::string ruler_summary_csv(std::span<const RulerTaskScore> scores);
struct RulerTaskPredictions {
  const RulerTask* task = nullptr;
  std::vector<RulerPrediction> predictions;
};
std::string ruler_submission_csv(std::span<const RulerTaskPredictions> tasks);

}  // namespace seer
