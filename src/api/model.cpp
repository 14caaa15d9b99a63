#include "seer/model.h"

#include <optional>

#include "api/load.h"
#include "core/check.h"
#include "eval/scoring.h"
#include "io/tokenizer.h"
#include "model/decode_gate.h"
#include "model/generate.h"

namespace seer {

struct Model::Impl {
  Impl(const std::string& folder, const ModelOptions& options)
      : config(load_model_config(folder)),
        tokenizer(Tokenizer::load(folder)),
        transformer(load_transformer(folder, config, options)) {}

  /// nullptr: dense.
  std::unique_ptr<Selector> selector(const SparsityOptions& sparsity) const {
    const bool by_share =
        sparsity.rule == SparsityOptions::Rule::kAdaptive || sparsity.rule == SparsityOptions::Rule::kNzRatio;
    if (by_share && sparsity.value == 1) return nullptr;
    SEER_CHECK(gate.has_value(), "sparse attention: expected a gate; call load_gate() before");
    return make_selector(SelectorKind::kGate, sparsity, config, &*gate, 0);
  }

  DecodeSparsity decode_sparsity(const CompletionOptions& options) const {
    if (options.token_budget == 0 && options.decode_threshold == 0) return {};
    SEER_CHECK(options.token_budget == 0 || options.decode_threshold == 0,
               "sparse decoding: expected token_budget or decode_threshold, found {} and {}",
               options.token_budget, options.decode_threshold);
    SEER_CHECK(decode_gate.has_value(), "sparse decoding: expected a gate; call load_decode_gate() before");
    const bool by_budget = options.token_budget != 0;
    return {.gate = &*decode_gate,
            .rule = by_budget ? DecodeSparsity::Rule::kTokenBudget : DecodeSparsity::Rule::kThreshold,
            .token_budget = options.token_budget,
            .threshold = options.decode_threshold};
  }

  ModelConfig config;
  Tokenizer tokenizer;
  std::unique_ptr<Transformer> transformer;
  std::optional<Gate> gate;
  std::optional<DecodeGate> decode_gate;
};

Model::Model(const std::string& folder, const ModelOptions& options)
    : impl_(std::make_unique<Impl>(folder, options)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

void Model::load_gate(const std::string& folder) { impl_->gate = seer::load_gate(folder, impl_->config); }
void Model::load_decode_gate(const std::string& folder) {
  impl_->decode_gate = seer::load_decode_gate(folder, impl_->config);
}
bool Model::has_gate() const { return impl_->gate.has_value(); }

std::int64_t Model::vocab_size() const { return impl_->config.vocab_size; }
std::int64_t Model::max_context() const { return impl_->transformer->max_context(); }

std::vector<std::int32_t> Model::encode(std::string_view text, bool add_special_tokens) const {
  return impl_->tokenizer.encode(text, add_special_tokens);
}

std::string Model::decode(std::span<const std::int32_t> tokens) const {
  return impl_->tokenizer.decode(tokens);
}

Completion Model::complete(std::string_view prompt, const CompletionOptions& options) {
  const std::unique_ptr<Selector> selector = impl_->selector(options.sparsity);
  const std::vector<std::int32_t> tokens = encode(prompt, options.add_special_tokens);
  GenerationBatch batch(*impl_->transformer, impl_->tokenizer);
  batch.add(tokens,
            {.sampling = options.sampling,
             .max_new_tokens = options.max_new_tokens,
             .stop = options.stop,
             .ignore_eos = options.ignore_eos,
             .decode = impl_->decode_sparsity(options)},
            selector.get(), options.on_text);
  DecodeStats stats;
  Generation generation = std::move(batch.finish(&stats).front());
  return {.text = std::move(generation.text),
          .tokens = std::move(generation.tokens),
          .finish = std::string(name_of(generation.reason)),
          .prompt_tokens = static_cast<std::int64_t>(tokens.size()),
          .density = generation.prefill.density(),
          .decode_density = generation.decode.density(),
          .prefill_seconds = generation.prefill.seconds,
          .decode_seconds = stats.seconds};
}

Scores Model::score(std::span<const std::int32_t> tokens, const SparsityOptions& sparsity) {
  const std::unique_ptr<Selector> selector = impl_->selector(sparsity);
  TokenScores scores = score_tokens(*impl_->transformer, tokens, selector.get());
  return {.logprobs = std::move(scores.logprobs),
          .density = scores.stats.density(),
          .prefill_seconds = scores.stats.seconds - scores.stats.logits_seconds};
}

}  // namespace seer
