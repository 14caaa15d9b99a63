// LongBench run by the shared runner of evaluations that generate: its samples, and the rows of its results.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "eval/generation_eval.h"
#include "eval/longbench_data.h"
#include "eval/longbench_score.h"
#include "eval/longbench_tasks.h"

namespace seer {

/// One task to run; `samples` are its lines, bad ones included.
struct LongBenchTaskRun {
  const LongBenchTask* task = nullptr;
  LongBenchPromptConfig prompt;
  std::vector<LongBenchSample> samples;

  /// Of the last good line: the harness takes those for all lines.
  const std::vector<std::string>& all_classes() const;
};

/// The samples of all tasks, in order, ready to be run. What cannot be prompted or scored has its defect.
/// `max_prompt_tokens` as in make_longbench_prompt().
std::vector<GenerationSample> longbench_generation_samples(const Context& context, const Tokenizer& tokenizer,
                                                           std::span<const LongBenchTaskRun> tasks,
                                                           std::int64_t max_prompt_tokens);

/// One task under one setting.
struct LongBenchRow {
  EvalSetting setting;
  LongBenchTaskScore score;  // of the samples that did not fail
  GenerationSummary summary;
  std::array<double, kLongBenchBuckets.size()> densities{};  // by bucket; 0 without samples
};

/// `first` is the index of the task's first sample in `results`, `setting` indexes `settings`.
LongBenchRow longbench_row(const LongBenchTaskRun& task, std::size_t first, const GenerationResults& results,
                           std::span<const EvalSetting> settings, std::size_t setting);

/// One number for a task: the mean of its buckets that have samples, rounded as the harness rounds averages,
/// or for LongBench without -E its plain score. NaN without samples.
double longbench_total(const LongBenchTaskScore& score, bool by_bucket);

/// Name of the folder of a setting's predictions: MODEL_0.002 for the gate at threshold 0.002, as the harness
/// names it; MODEL_dense, MODEL_oracle_nz_ratio_0.1 and the like for others.
std::string longbench_predictions_folder(const std::string& model_folder, const EvalSetting& setting);

/// The predictions of a task under a setting, as the harness writes them; failed samples have no line.
std::string longbench_predictions(const LongBenchTaskRun& task, std::size_t first,
                                  const GenerationResults& results, std::size_t setting);

}  // namespace seer
