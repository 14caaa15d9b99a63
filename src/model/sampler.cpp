#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.h"
#include "ops/elementwise.h"

namespace seer {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): a counter through a mixing function.
std::uint64_t splitmix64(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

void validate(const SamplingOptions& options) {
  SEER_CHECK(options.temperature >= 0 && std::isfinite(options.temperature),
             "--temperature: expected 0 or more, found {}", options.temperature);
  SEER_CHECK(options.top_k >= 0, "--top-k: expected 0 (off) or more, found {}", options.top_k);
  SEER_CHECK(options.top_p > 0 && options.top_p <= 1, "--top-p: expected more than 0 and at most 1, found {}",
             options.top_p);
  SEER_CHECK(options.min_p >= 0 && options.min_p <= 1, "--min-p: expected 0 to 1, found {}", options.min_p);
  SEER_CHECK(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty),
             "--repetition-penalty: expected more than 0, found {}", options.repetition_penalty);
}

Sampler::Sampler(const SamplingOptions& options, std::uint64_t stream) : options_(options) {
  validate(options);
  std::uint64_t stream_state = stream;
  state_ = options.seed ^ splitmix64(stream_state);
}

TokenDraw Sampler::next_draw() {
  constexpr std::int64_t kMaxTopK = std::numeric_limits<std::int32_t>::max();
  TokenDraw draw{.temperature = options_.temperature,
                 .top_p = options_.top_p,
                 .min_p = options_.min_p,
                 .top_k = static_cast<std::int32_t>(std::min(options_.top_k, kMaxTopK))};
  if (draw.temperature != 0) draw.uniform = static_cast<double>(splitmix64(state_) >> 11) * 0x1p-53;
  return draw;
}

std::int32_t Sampler::sample(std::span<float> logits, std::span<const std::int32_t> seen) {
  if (changes_logits()) {
    std::vector<std::int32_t> ids(seen.begin(), seen.end());
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (const std::int32_t id : ids) {
      float& logit = logits[static_cast<std::size_t>(id)];
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
  }
  return draw_token(logits, next_draw());
}

std::int32_t draw_token(std::span<const float> logits, const TokenDraw& draw) {
  const std::int32_t largest_id = argmax(logits);
  if (draw.temperature == 0) return largest_id;
  const float largest = logits[static_cast<std::size_t>(largest_id)];
  SEER_CHECK(std::isfinite(largest), "the model's largest logit is {}: weights or activations overflow",
             largest);

  struct Candidate {
    float value;  // distance to the largest logit, then weight
    std::int32_t id;
  };
  std::vector<Candidate> candidates(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {largest - logits[i], static_cast<std::int32_t>(i)};
  const auto more_likely = [](const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value < b.value : a.id < b.id;
  };
  if (draw.top_k > 0 && static_cast<std::size_t>(draw.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + draw.top_k, candidates.end(), more_likely);
    candidates.resize(static_cast<std::size_t>(draw.top_k));
  }
  std::sort(candidates.begin(), candidates.end(), more_likely);
  double total = 0;
  for (Candidate& candidate : candidates)
    total += candidate.value = std::exp(-candidate.value / draw.temperature);

  std::size_t kept = candidates.size();
  if (draw.top_p < 1) {
    double mass = 0;
    kept = 0;
    while (kept < candidates.size() && mass < draw.top_p * total) mass += candidates[kept++].value;
  }
  // Weights are relative to the most likely token's, which is 1.
  while (kept > 1 && candidates[kept - 1].value < draw.min_p) --kept;

  double mass = 0;
  for (std::size_t i = 0; i < kept; ++i) mass += candidates[i].value;
  double point = draw.uniform * mass;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    point -= candidates[i].value;
    if (point < 0) return candidates[i].id;
  }
  return candidates[kept - 1].id;
}

}  // namespace seer
