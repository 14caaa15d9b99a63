// Log-probabilities of a text's tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace seer {

struct TokenScores {
  std::vector<float> logprobs;  // [tokens - 1]; entry i is that of token i + 1 given tokens 0..i
  PrefillStats stats;
};

/// Scores `tokens` in one prefill. `on_logits` also sees every row of logits, the last one included. Throws
/// Error when a token is outside the vocabulary, when there are none, and when a log-probability is NaN.
TokenScores score_tokens(
    Transformer& model, std::span<const std::int32_t> tokens, Selector* selector,
    const std::function<void(std::int64_t done)>& on_progress = {},
    const std::function<void(std::int64_t first, std::int64_t rows, const float* logits)>& on_logits = {});

}  // namespace seer
