#include "train/adam.h"

#include <cmath>
#include <numbers>

namespace seer {

AdamFactors adam_factors(const AdamOptions& options, std::int64_t step, double learning_rate) {
  const auto count = static_cast<double>(step);
  return {.beta1 = static_cast<float>(options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .epsilon = static_cast<float>(options.epsilon),
          .rate = static_cast<float>(learning_rate / (1 - std::pow(options.beta1, count))),
          .v_share = static_cast<float>(1 / (1 - std::pow(options.beta2, count)))};
}

void adam_update(const AdamOptions& options, std::int64_t step, double learning_rate, std::int64_t size,
                 const float* gradient, float* parameters, float* m, float* v) {
  const auto [beta1, beta2, epsilon, rate, v_share] = adam_factors(options, step, learning_rate);
  for (std::int64_t i = 0; i < size; ++i) {
    const float g = gradient[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    parameters[i] -= rate * m[i] / (std::sqrt(v[i] * v_share) + epsilon);
  }
}

double cosine_learning_rate(double peak, std::int64_t warmup, std::int64_t steps, std::int64_t step) {
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  const double done = static_cast<double>(step - warmup) / static_cast<double>(steps - warmup + 1);
  return peak * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

}  // namespace seer
