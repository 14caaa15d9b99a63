// Text generation: stop rules, streaming, batches of prompts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokenizer.h"
#include "model/decode_selector.h"
#include "model/sampler.h"
#include "model/selector.h"
#include "model/transformer.h"

namespace seer {

/// Finds stop strings in text that arrives in pieces, and holds back what may still become one.
class StopScanner {
 public:
  explicit StopScanner(std::vector<std::string> stops);
  /// Text that is certainly before any stop string. After a stop was found: nothing.
  std::string push(std::string_view piece);
  /// What was held back, when the text ends without a stop string.
  std::string finish();
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string pending_;
  bool found_ = false;
};

enum class FinishReason { kEos, kStop, kLength };
std::string_view name_of(FinishReason reason);  ///< "eos", "stop", "length"

struct GenerateOptions {
  SamplingOptions sampling;
  std::int64_t max_new_tokens = 256;
  std::int64_t min_new_tokens = 0;       // tokens before which no end token can be drawn
  std::vector<std::int32_t> end_tokens;  // instead of the model's end-of-sequence ids; empty: those
  std::vector<std::string> stop;         // the text ends before the first of these
  bool ignore_eos = false;
  DecodeSparsity decode;  // dense without a gate
};

struct Generation {
  std::vector<std::int32_t> tokens;  // without the end token
  std::string text;                  // special tokens skipped, cut before a stop string
  FinishReason reason = FinishReason::kLength;
  PrefillStats prefill;
  DecodeDensity decode;  // sparse decoding's; empty (density 1) after dense
};

/// What decoding took.
struct DecodeStats {
  double seconds = 0;
  std::int64_t steps = 0;   // forward passes
  std::int64_t tokens = 0;  // tokens of all sequences in them
};

/// Prompts whose continuations are decoded together. A prompt's tokens do not depend on its company
/// as long as there are no more than kMaxIndependent prompts.
class GenerationBatch {
 public:
  static constexpr std::size_t kMaxIndependent = 32;

  /// Called with whole UTF-8 characters as they become certain.
  using OnText = std::function<void(std::string_view piece)>;
  /// Called with the prompt's tokens done so far.
  using OnPrefill = std::function<void(std::int64_t done)>;

  GenerationBatch(Transformer& model, const Tokenizer& tokenizer);
  ~GenerationBatch();
  GenerationBatch(const GenerationBatch&) = delete;
  GenerationBatch& operator=(const GenerationBatch&) = delete;

  /// Prefills a prompt with `selector` (nullptr: dense) and draws its first token. Throws Error when the
  /// prompt is empty or longer than the context, or an option is out of its range; the batch is then as it
  /// was.
  const PrefillStats& add(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                          Selector* selector, OnText on_text = {}, const OnPrefill& on_prefill = {});
  std::size_t size() const;  ///< prompts added since the last finish()
  /// Decodes until each prompt has met its end; returns them in the order of add() and starts anew.
  std::vector<Generation> finish(DecodeStats* stats = nullptr);

 private:
  struct Stream;
  const std::vector<std::int32_t>& ends_of(const Stream& stream) const;
  std::int32_t draw(Stream& stream, std::span<float> logits);
  bool advance(Stream& stream, std::int32_t token);

  Transformer& model_;
  const Tokenizer& tokenizer_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

struct GenerateResult {
  std::vector<Generation> generations;  // one for each prompt
  double prefill_seconds = 0;
  double decode_seconds = 0;
  std::int64_t decode_steps = 0;   // forward passes
  std::int64_t decode_tokens = 0;  // tokens of all sequences in them
};

/// Continues every prompt in one batch with the same options and selector (nullptr: dense).
/// `on_text(prompt, piece)` and `on_prefill(prompt, tokens_done)` are those of GenerationBatch. Throws Error
/// when a prompt is empty or longer than the context.
GenerateResult generate(Transformer& model, const Tokenizer& tokenizer,
                        std::span<const std::vector<std::int32_t>> prompts, const GenerateOptions& options,
                        Selector* selector,
                        const std::function<void(std::size_t, std::string_view)>& on_text = {},
                        const std::function<void(std::size_t, std::int64_t)>& on_prefill = {});

}  // namespace seer
