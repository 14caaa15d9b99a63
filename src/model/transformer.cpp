#include "model/transformer.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace seer {

std::string_view name_of(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }

Transformer::Transformer(const ModelConfig& config, const Context& context, const TransformerOptions& options,
                         std::shared_ptr<PagePool> pool)
    : config_(config),
      context_(context),
      options_(options),
      max_context_(options.max_context > 0 ? options.max_context : config.max_position_embeddings),
      pool_(std::move(pool)),
      rope_(config.rope, config.head_dim, config.max_position_embeddings) {
  SEER_CHECK(options.chunk_tokens >= 0 && options.chunk_tokens % kBlockSize == 0,
             "chunk_tokens: expected a multiple of {}, found {}", kBlockSize, options.chunk_tokens);
}

RopeTable Transformer::rope_for(std::int64_t length) const {
  if (config_.rope.type == RopeType::kDynamic && length > config_.max_position_embeddings)
    return RopeTable(config_.rope, config_.head_dim, length);
  return rope_;
}

PrefillResult Transformer::prefill(Sequence& sequence, const PrefillRequest& request) {
  const auto total = static_cast<std::int64_t>(request.tokens.size());
  SEER_CHECK(total > 0, "prefill: the prompt is empty; expected at least one token");
  SEER_CHECK(total <= max_context_,
             "prefill: the prompt has {} tokens, the context holds {}; raise it with --max-context", total,
             max_context_);
  SEER_CHECK(sequence.length() == 0, "prefill: expected an empty sequence, found one of {} tokens",
             sequence.length());
  SEER_CHECK(request.observer == nullptr || !request.observer->wants().probe || request.selector == nullptr,
             "prefill: selectors are probed in a dense prefill only");
  for (const std::int32_t id : request.tokens)
    SEER_CHECK(id >= 0 && id < config_.vocab_size, "token id {} is outside the model's vocabulary of {}", id,
               config_.vocab_size);
  return run_prefill(sequence, request);
}

void Transformer::extend_for_decode(std::span<Sequence* const> sequences,
                                    std::span<const std::int32_t> tokens) {
  SEER_CHECK(tokens.size() == sequences.size(),
             "decode: expected one token for each of {} sequences, found {}", sequences.size(),
             tokens.size());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    SEER_CHECK(sequences[i]->length() < max_context_,
               "decode: the context of {} tokens is full; raise it with --max-context", max_context_);
    SEER_CHECK(tokens[i] >= 0 && tokens[i] < config_.vocab_size,
               "token id {} is outside the model's vocabulary of {}", tokens[i], config_.vocab_size);
    sequences[i]->extend(1);
  }
}

void Transformer::decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                         float* logits) {
  extend_for_decode(sequences, tokens);
  if (!sequences.empty()) run_decode(sequences, tokens, logits, {}, nullptr);
}

void Transformer::decode_drawn(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                               std::span<const TokenDraw> draws, std::int32_t* next) {
  SEER_CHECK(draws.size() == sequences.size(), "decode: expected one draw for each of {} sequences, found {}",
             sequences.size(), draws.size());
  extend_for_decode(sequences, tokens);
  if (!sequences.empty()) run_decode(sequences, tokens, nullptr, draws, next);
}

void Transformer::decode_greedy(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                                std::int32_t* next) {
  decode_drawn(sequences, tokens, std::vector<TokenDraw>(sequences.size()), next);
}

DecodeDensity Transformer::decode_density(const Sequence& sequence) const {
  return sequence.decode_selector() == nullptr ? DecodeDensity{} : sequence.decode_selector()->density();
}

}  // namespace seer
