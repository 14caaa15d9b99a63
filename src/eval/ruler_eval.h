// RULER run by the shared runner of evaluations that generate: its samples, and the rows of its results.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "eval/generation_eval.h"
#include "eval/ruler.h"
#include "eval/ruler_data.h"
#include "eval/ruler_generate.h"
#include "eval/ruler_results.h"

namespace seer {

/// The samples of one task at one length.
struct RulerGroup {
  const RulerTask* task = nullptr;
  std::int64_t length = 0;  // tokens; 0 until name_ruler_lengths()
  std::vector<RulerSample> samples;
};

/// `samples` made-up samples for each length and task, in this order. Throws Error when a length is too short
/// for a task.
std::vector<RulerGroup> generate_ruler_groups(const Context& context, std::span<const RulerTask* const> tasks,
                                              std::span<const std::int64_t> lengths, std::int64_t samples,
                                              std::uint64_t seed, const RulerHaystack& haystack,
                                              const Tokenizer& tokenizer);

/// The first `samples` (0: all) of each file.
std::vector<RulerGroup> read_ruler_groups(std::span<const RulerFile> files, std::int64_t samples);

/// The samples of all groups, in order, ready to be run; those that do not fit a context of `max_context`
/// tokens have their defect. Groups without a length get the smallest power of two that holds the longest
/// sample of all of them, generated tokens included.
std::vector<GenerationSample> ruler_generation_samples(const Tokenizer& tokenizer,
                                                       std::vector<RulerGroup>& groups,
                                                       std::int64_t max_context);

/// One task at one length under one setting.
struct RulerRow {
  std::string task;
  std::int64_t length = 0;
  EvalSetting setting;
  double score = 0;           // percent, two decimals; 0 where every sample failed
  GenerationSummary summary;  // predictions are empty as the harness sees them: without white space
};

/// The group's predictions under a setting, without those of failed samples. `first` is the index of the
/// group's first sample in `results`.
std::vector<RulerPrediction> ruler_predictions(const RulerGroup& group, std::size_t first,
                                               const GenerationResults& results, std::size_t setting);

RulerRow ruler_row(const RulerGroup& group, std::size_t first, const GenerationResults& results,
                   std::span<const EvalSetting> settings, std::size_t setting);

/// Mean of the rows' scores, rounded as they are.
double ruler_average(std::span<const RulerRow* const> rows);

/// A name for a setting's folder of predictions: "dense", "gate_threshold_0.0005".
std::string ruler_setting_folder(const EvalSetting& setting);

}  // namespace seer
