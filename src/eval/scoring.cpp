#include "eval/scoring.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace seer {

TokenScores score_tokens(Transformer& model, std::span<const std::int32_t> tokens, Selector* selector,
                         const std::function<void(std::int64_t)>& on_progress,
                         const std::function<void(std::int64_t, std::int64_t, const float*)>& on_logits) {
  SEER_CHECK(!tokens.empty(), "expected at least one token to score, found an empty text");
  TokenScores scores;
  std::vector<float>& nll = scores.logprobs;
  nll.resize(tokens.size() - 1);
  Sequence sequence = model.new_sequence();
  scores.stats = model
                     .prefill(sequence, {.tokens = tokens,
                                         .selector = selector,
                                         .on_logits = on_logits,
                                         .nll = nll.data(),
                                         .want_last_logits = false,
                                         .on_progress = on_progress})
                     .stats;
  for (std::size_t i = 0; i < nll.size(); ++i)
    SEER_CHECK(!std::isnan(nll[i]), "the log-probability of token {} is NaN: weights or activations overflow",
               i + 1);
  std::transform(nll.begin(), nll.end(), nll.begin(), std::negate<>());
  return scores;
}

}  // namespace seer
