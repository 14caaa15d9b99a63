#include "eval/scoring.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace seer {

void token_logprobs(const Context& context, const float* logits, std::int64_t rows, std::int64_t vocab,
                    std::span<const std::int32_t> targets, float* out) {
  context.parallel_for(rows, [&](std::int64_t row, int) {
    const float* x = logits + row * vocab;
    const float largest = *std::max_element(x, x + vocab);
    double sum = 0;
    for (std::int64_t i = 0; i < vocab; ++i) sum += std::exp(x[i] - largest);
    const double target = x[targets[static_cast<std::size_t>(row)]];
    out[row] = static_cast<float>(target - largest - std::log(sum));
  });
}

TokenScores score_tokens(Transformer& model, std::span<const std::int32_t> tokens, Selector* selector,
                         const std::function<void(std::int64_t)>& on_progress,
                         const std::function<void(std::int64_t, std::int64_t, const float*)>& on_logits) {
  SEER_CHECK(!tokens.empty(), "expected at least one token to score, found an empty text");
  const std::int64_t vocab = model.config().vocab_size;
  for (const std::int32_t id : tokens)
    SEER_CHECK(id >= 0 && id < vocab, "token id {} is outside the model's vocabulary of {}", id, vocab);
  const auto last = static_cast<std::int64_t>(tokens.size()) - 1;

  TokenScores scores;
  scores.logprobs.resize(static_cast<std::size_t>(last));
  Sequence sequence = model.new_sequence();
  PrefillRequest request{.tokens = tokens, .selector = selector, .want_last_logits = false};
  request.on_logits = [&](std::int64_t first, std::int64_t rows, const float* logits) {
    if (on_logits) on_logits(first, rows, logits);
    const std::int64_t scored = std::min(rows, last - first);
    if (scored <= 0) return;
    token_logprobs(model.context(), logits, scored, vocab,
                   tokens.subspan(static_cast<std::size_t>(first) + 1, static_cast<std::size_t>(scored)),
                   scores.logprobs.data() + first);
  };
  request.on_progress = on_progress;
  scores.stats = model.prefill(sequence, request).stats;
  for (std::size_t i = 0; i < scores.logprobs.size(); ++i)
    SEER_CHECK(!std::isnan(scores.logprobs[i]),
               "the log-probability of token {} is NaN: weights or activations overflow", i + 1);
  return scores;
}

}  // namespace seer
