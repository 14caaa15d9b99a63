// Rotary frequencies as Hugging Face transformers defines them for each rope_type, in float64.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/config.h"

namespace seer {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

/// Llama 3: low frequencies divided by `factor`, high ones kept, a smooth passage between.
double llama3_frequency(const RopeConfig& rope, double frequency) {
  const double wavelength = kTwoPi / frequency;
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double smooth =
      (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

/// YaRN (arXiv 2309.00071): interpolated below the `low` pair, kept above `high`, a ramp between.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& rope, int dim) {
    const auto pair_with_rotations = [&](double rotations) {
      return dim *
             std::log(static_cast<double>(rope.original_max_position_embeddings) / (rotations * kTwoPi)) /
             (2 * std::log(rope.theta));
    };
    low_ = pair_with_rotations(rope.beta_fast);
    high_ = pair_with_rotations(rope.beta_slow);
    if (rope.truncate) low_ = std::floor(low_), high_ = std::ceil(high_);
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, dim - 1.0);
    if (low_ == high_) high_ += 0.001;
  }
  double kept_share(int pair) const { return 1 - std::clamp((pair - low_) / (high_ - low_), 0.0, 1.0); }

 private:
  double low_, high_;
};

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeConfig& rope) {
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale && rope.mscale_all_dim)
    return yarn_mscale(rope.factor, *rope.mscale) / yarn_mscale(rope.factor, *rope.mscale_all_dim);
  return yarn_mscale(rope.factor, 1.0);
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& rope, int dim, std::int64_t max_position)
    : dim_(dim), inv_freq_(static_cast<std::size_t>(dim / 2)) {
  double theta = rope.theta;
  if (rope.type == RopeType::kDynamic) {
    const auto trained = static_cast<double>(rope.max_position_embeddings);
    const double length = std::max(trained, static_cast<double>(max_position));
    theta *= std::pow(rope.factor * length / trained - (rope.factor - 1), dim / (dim - 2.0));
  }
  const YarnRamp ramp(rope, dim);
  for (int pair = 0; pair < dim / 2; ++pair) {
    double frequency = std::pow(theta, -2.0 * pair / dim);
    if (rope.type == RopeType::kLinear) frequency /= rope.factor;
    if (rope.type == RopeType::kLlama3) frequency = llama3_frequency(rope, frequency);
    if (rope.type == RopeType::kYarn) {
      const double kept = ramp.kept_share(pair);
      frequency = frequency / rope.factor * (1 - kept) + frequency * kept;
    }
    inv_freq_[static_cast<std::size_t>(pair)] = frequency;
  }
  if (rope.type == RopeType::kYarn) attention_factor_ = yarn_attention_factor(rope);
}

void RopeTable::fill(std::int64_t first, std::int64_t step, std::int64_t count, float* cos,
                     float* sin) const {
  const int half = dim_ / 2;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto position = static_cast<double>(first + i * step);
    for (int pair = 0; pair < half; ++pair) {
      const double angle = position * inv_freq_[static_cast<std::size_t>(pair)];
      cos[i * half + pair] = static_cast<float>(std::cos(angle) * attention_factor_);
      sin[i * half + pair] = static_cast<float>(std::sin(angle) * attention_factor_);
    }
  }
}

}  // namespace seer
