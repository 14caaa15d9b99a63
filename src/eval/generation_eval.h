// Evaluations that generate: every sample's prompt is prefilled by every selector and continued greedily with
// dense attention. The runner that RULER and LongBench share.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/sample_log.h"
#include "eval/setting.h"
#include "io/tokenizer.h"
#include "model/gate.h"
#include "model/generate.h"
#include "model/transformer.h"

namespace seer {

/// One prompt of an evaluation and the rules of its continuation.
struct GenerationSample {
  std::string task;
  std::string id;      // of the sample within task and bucket
  std::string bucket;  // length or group of lengths that results are averaged over
  std::string source;  // where the sample is from, for messages: file:line
  std::vector<std::int32_t> prompt;
  std::int64_t max_new_tokens = 0;
  std::int64_t min_new_tokens = 0;
  std::vector<std::int32_t> end_tokens;  // instead of the model's own; empty: those
  std::vector<std::string> stop;         // the prediction ends before the first of these
  /// JSON members, without braces, that the sample's log lines carry beside the results; may be empty.
  std::string members;
  /// Why the sample cannot be run, where its reader found out; it is then counted as failed.
  std::string defect;
};

/// What one selector made of one sample.
struct GenerationRecord {
  std::string prediction;  // special tokens skipped, cut before a stop string
  std::vector<std::int32_t> tokens;
  std::string finish;  // "eos", "stop" or "length"
  std::int64_t prompt_tokens = 0;
  std::int64_t selected_blocks = 0;
  std::int64_t causal_blocks = 0;
  double ttft_seconds = 0;  // prefill with the last token's logits
  double select_seconds = 0;
  double attention_seconds = 0;
  double score = 0;
};

struct GenerationRequest {
  std::string label;  // of the progress line and the fingerprint: "eval ruler"
  /// As eval_settings() orders them. `local` and `random` under any rule but nz_ratio compute as many blocks
  /// as the gate did, under the same rule and value, on the same sample.
  std::vector<EvalSetting> settings;
  std::uint64_t seed = 0;
  /// What else decides about a record (model, dtype, program, ...): records in the log count only under the
  /// same fingerprint.
  std::uint64_t fingerprint = 0;
  std::uint64_t gate_fingerprint = 0;
  /// JSON members that every logged line carries: `"version":"0.1.0",...` without braces.
  std::string provenance;
  /// Score of samples[i]'s prediction; logged with it.
  std::function<double(std::size_t sample, std::string_view prediction)> score;
};

struct GenerationResults {
  /// [sample][setting]; empty where the sample failed.
  std::vector<std::vector<std::optional<GenerationRecord>>> records;
  std::int64_t failed = 0;  // samples that failed under at least one setting
};

/// Means over the records of some samples under one setting.
struct GenerationSummary {
  std::int64_t samples = 0;  // that finished
  std::int64_t failed = 0;
  std::int64_t empty_predictions = 0;
  double density = 0;  // selected over causal blocks
  double ttft_seconds = 0;
  double select_seconds = 0;
  double attention_seconds = 0;
};
GenerationSummary summarize(const GenerationResults& results, std::span<const std::size_t> samples,
                            std::size_t setting);

/// Runs sample after sample and of a sample setting after setting, so that drifting clocks weigh the same on
/// all; the settings of one sample or several are decoded together, which changes no token. Records in `log`
/// (may be nullptr) are not computed again, and each new one is appended to it. A sample that cannot be run
/// is reported on standard error by its source and counted, and the others go on. Throws Error before any
/// work when a setting cannot run, and when the log cannot be written. `on_sample(i)` is called in order,
/// once all of sample i is in the results.
GenerationResults evaluate_generation(
    Transformer& model, const Tokenizer& tokenizer, const Gate* gate,
    std::span<const GenerationSample> samples, const GenerationRequest& request, SampleLog* log,
    bool show_progress,
    const std::function<void(std::size_t sample, const GenerationResults& results)>& on_sample = {});

/// The nz_ratio by which a baseline selector has at least `selected` of `causal` blocks of a prompt of
/// `total_blocks` block rows, and no more than it must.
double nz_ratio_for_blocks(std::int64_t selected, std::int64_t causal, std::int64_t total_blocks,
                           bool last_block_dense);

}  // namespace seer
