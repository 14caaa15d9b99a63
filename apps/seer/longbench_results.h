// What seer eval longbench makes of a run: the table, the rows and the files of predictions.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "eval/longbench_eval.h"
#include "eval_longbench.h"
#include "longbench_table.h"

inline constexpr const char* kLongBenchRowsFile = "longbench.json";

/// Collects results task by task. `flags` must outlive it.
class LongBenchResults {
 public:
  LongBenchResults(const LongBenchFlags& flags, std::vector<seer::LongBenchTaskRun> tasks,
                   std::vector<seer::EvalSetting> settings, std::string model_folder,
                   nlohmann::ordered_json origin);

  /// Of a sample's prediction, 0 to 1. Samples are counted over all tasks.
  double score(std::size_t sample, std::string_view prediction) const;
  /// After a task's last sample: prints its rows and writes its predictions.
  void add_sample(std::size_t sample, const seer::GenerationResults& results);
  /// Prints averages and densities, and writes the files of results.
  void finish(const seer::GenerationResults& results) const;

 private:
  std::size_t task_of(std::size_t sample) const;
  std::filesystem::path predictions_folder(std::size_t setting) const;
  std::vector<seer::LongBenchTaskScore> scores_of(std::size_t setting) const;
  void print_densities(const seer::GenerationResults& results) const;
  nlohmann::ordered_json to_json(const seer::LongBenchRow& row) const;

  const LongBenchFlags& flags_;
  std::vector<seer::LongBenchTaskRun> tasks_;
  std::vector<seer::EvalSetting> settings_;
  std::string model_folder_;
  nlohmann::ordered_json origin_;
  LongBenchTable table_;
  std::vector<std::size_t> firsts_;                    // index of each task's first sample
  std::vector<std::vector<seer::LongBenchRow>> rows_;  // [task][setting], of finished tasks
};
