// Perplexity of documents by length, selector and density: the PG19 protocol (docs/evaluation-ppl.md).
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
#include "model/selector.h"
#include "model/transformer.h"

namespace seer {

/// One forward pass over tokens [begin, end) of a document, after a start token where the model has one.
struct PplWindow {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t first_counted = 0;  // losses of tokens [first_counted, end) count
};

/// Windows of a document of `tokens` tokens for inputs of `length` tokens, the start token included.
/// `stride` 0: one window, the document's beginning. Otherwise windows begin every `stride` tokens until one
/// reaches the end, and the tokens after the last window's end count.
std::vector<PplWindow> perplexity_windows(std::int64_t tokens, bool start_token, std::int64_t length,
                                          std::int64_t stride);

/// Mean of the negative log-probabilities, added up in float64.
double mean_nll(std::span<const float> logprobs);

/// exp of the mean of the windows' losses, each window weighing the same.
double perplexity_of(std::span<const double> window_losses);

/// A document ready to be evaluated, without special tokens.
struct EvalDocument {
  std::string name;
  std::vector<std::int32_t> ids;
};

struct EvalDataRequest {
  std::string path;
  std::vector<std::string> extensions;  // of a folder's files; empty: all
  std::int64_t min_tokens = 0;
  std::int64_t max_documents = 0;  // 0: all
};

struct EvalData {
  std::vector<EvalDocument> documents;
  std::int64_t left_out = 0;  // documents that are too short
};

/// Documents of at least `min_tokens` tokens. A line of a .jsonl file is a document. Texts of a folder, in
/// sorted path order, are joined until a document is long enough, and then the next one begins; what is left
/// at the end is left out. A text file is a folder of one. `tokenizer` may be nullptr for `input_ids`.
/// Throws Error naming the path when no document is long enough.
EvalData load_eval_data(const EvalDataRequest& request, const Tokenizer* tokenizer);

/// One window that has been evaluated.
struct PplSample {
  double nll = 0;
  std::int64_t tokens = 0;  // of the forward pass
  std::int64_t counted = 0;
  std::int64_t selected_blocks = 0;
  std::int64_t causal_blocks = 0;
  double prefill_seconds = 0;  // the logits are not in it
  double select_seconds = 0;
  double attention_seconds = 0;
};

struct PplRow {
  std::int64_t length = 0;
  EvalSetting setting;
  std::vector<PplSample> samples;

  /// local and random count blocks as nz_ratio does when a density is asked for.
  std::string_view rule_name() const;
  double ppl() const;
  double density() const;
  /// Means over the samples.
  double prefill_seconds() const;
  double select_seconds() const;
  double attention_seconds() const;
};

struct PplRequest {
  std::vector<std::int64_t> lengths;
  std::vector<EvalSetting> settings;
  std::int64_t stride = 0;
  std::uint64_t seed = 0;
  std::optional<std::int32_t> start_token;
  /// What else decides about a sample (model, gate, dtype, program, ...): samples in the log count only under
  /// the same fingerprint.
  std::uint64_t fingerprint = 0;
  std::uint64_t gate_fingerprint = 0;
  /// JSON members that every logged sample carries: `"version":"0.1.0",...` without braces.
  std::string provenance;
};

/// Evaluates length after length; of a length document after document, and of a document setting after
/// setting, so that drifting clocks weigh the same on all. Samples in `log` (may be nullptr) are not computed
/// again, and each new one is appended to it. Throws Error before any work when a setting or length cannot
/// run. `on_length` gets the rows of a finished length.
void evaluate_perplexity(Transformer& model, const Gate* gate, std::span<const EvalDocument> documents,
                         const PplRequest& request, SampleLog* log, bool show_progress,
                         const std::function<void(std::vector<PplRow>)>& on_length);

}  // namespace seer
