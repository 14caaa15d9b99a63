// Long-context language models with learned block-sparse attention: load, complete, score.
//
//   seer::Model model("Llama-3.1-8B", {.device = "cuda"});
//   model.load_gate("Llama-3.1-8B-gates");
//   const auto answer = model.complete(prompt, {.sparsity = {.value = 0.2}, .max_new_tokens = 64});
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seer/error.h"
#include "seer/options.h"

namespace seer {

struct CompletionOptions {
  SparsityOptions sparsity;  // of the prompt
  /// Which blocks of the context a decoded token reads; needs load_decode_gate() unless all are 0.
  /// token_budget: the best of so many tokens, in whole blocks of 64. decode_threshold: blocks whose
  /// predicted share of a token's attention exceeds it. One of the two; the last block is always read.
  std::int64_t token_budget = 0;
  double decode_threshold = 0;
  SamplingOptions sampling;
  std::int64_t max_new_tokens = 256;
  std::vector<std::string> stop;  // the text ends before the first of these
  bool ignore_eos = false;
  bool add_special_tokens = true;  // the tokenizer's own, such as a start token
  /// Called with whole UTF-8 characters as they become certain.
  std::function<void(std::string_view piece)> on_text;
};

struct Completion {
  std::string text;
  std::vector<std::int32_t> tokens;  // without the end token
  std::string finish;                // "eos", "stop" or "length"
  std::int64_t prompt_tokens = 0;
  double density = 1;         // measured: computed over causal blocks of the prompt, all layers and heads
  double decode_density = 1;  // measured: read over all blocks of the decoded tokens, layers and KV heads
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

struct Scores {
  std::vector<float> logprobs;  // [tokens - 1]; entry i is that of token i + 1 given tokens 0..i
  double density = 1;
  double prefill_seconds = 0;
};

/// A model from its Hugging Face folder (Llama, Mistral without sliding window, Qwen2/2.5, Qwen3), with its
/// tokenizer. Move-only; one thread at a time. Every function throws Error on bad input.
class Model {
 public:
  explicit Model(const std::string& folder, const ModelOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  /// Gates for sparse prefill: a folder written by `seer distill`, or by the reference implementation.
  void load_gate(const std::string& folder);
  bool has_gate() const;
  /// A gate for sparse decoding (SeerAttention-R), as the reference implementation writes it.
  void load_decode_gate(const std::string& folder);

  std::int64_t vocab_size() const;
  std::int64_t max_context() const;

  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  std::string decode(std::span<const std::int32_t> tokens) const;  ///< special tokens skipped

  /// Continues a text. A sparsity other than dense needs a gate.
  Completion complete(std::string_view prompt, const CompletionOptions& options = {});
  /// Log-probabilities of tokens, in one prefill.
  Scores score(std::span<const std::int32_t> tokens, const SparsityOptions& sparsity = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer
