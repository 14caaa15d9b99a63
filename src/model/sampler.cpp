#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "model/generate.h"
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

double Sampler::next_uniform() { return static_cast<double>(splitmix64(state_) >> 11) * 0x1p-53; }

std::int32_t Sampler::sample(std::span<float> logits, std::span<const std::int32_t> seen) {
  if (options_.repetition_penalty != 1) {
    std::vector<std::int32_t> ids(seen.begin(), seen.end());
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (const std::int32_t id : ids) {
      float& logit = logits[static_cast<std::size_t>(id)];
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
  }
  const std::int32_t largest_id = argmax(logits);
  if (options_.temperature == 0) return largest_id;

  candidates_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates_[i] = {logits[i] / options_.temperature, static_cast<std::int32_t>(i)};
  const auto more_likely = [](const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value > b.value : a.id < b.id;
  };
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(),
                     more_likely);
    candidates_.resize(static_cast<std::size_t>(options_.top_k));
  }
  std::sort(candidates_.begin(), candidates_.end(), more_likely);
  const float largest = candidates_.front().value;
  double total = 0;
  for (Candidate& candidate : candidates_) total += candidate.value = std::exp(candidate.value - largest);

  std::size_t kept = candidates_.size();
  if (options_.top_p < 1) {
    double mass = 0;
    kept = 0;
    while (kept < candidates_.size() && mass < options_.top_p * total) mass += candidates_[kept++].value;
  }
  // Probabilities are relative to the most likely token's, which is 1.
  while (kept > 1 && candidates_[kept - 1].value < options_.min_p) --kept;

  double mass = 0;
  for (std::size_t i = 0; i < kept; ++i) mass += candidates_[i].value;
  double point = next_uniform() * mass;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    point -= candidates_[i].value;
    if (point < 0) return candidates_[i].id;
  }
  return candidates_[kept - 1].id;
}

}  // namespace seer
