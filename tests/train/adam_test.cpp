#include "train/adam.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace seer {
namespace {

TEST(Adam, FollowsTheDefinition) {
  // In float64, written from the paper's algorithm 1.
  double parameter = 0.5, m = 0, v = 0;
  std::vector<float> actual{0.5f}, actual_m{0}, actual_v{0};
  for (int step = 1; step <= 50; ++step) {
    const double gradient = std::sin(step) + 0.3;
    m = 0.9 * m + 0.1 * gradient;
    v = 0.999 * v + 0.001 * gradient * gradient;
    parameter -= 0.01 * (m / (1 - std::pow(0.9, step))) / (std::sqrt(v / (1 - std::pow(0.999, step))) + 1e-8);
    const auto g = static_cast<float>(gradient);
    adam_update({}, step, 0.01, 1, &g, actual.data(), actual_m.data(), actual_v.data());
    EXPECT_NEAR(actual[0], parameter, 1e-5) << "step " << step;
  }
}

TEST(Adam, ZeroGradientsChangeNothing) {
  std::vector<float> parameters{1, -2}, m(2, 0.0f), v(2, 0.0f);
  const std::vector<float> gradient(2, 0.0f);
  adam_update({}, 1, 0.1, 2, gradient.data(), parameters.data(), m.data(), v.data());
  EXPECT_EQ(parameters, (std::vector<float>{1, -2}));
}

TEST(CosineLearningRate, RisesAndFalls) {
  EXPECT_DOUBLE_EQ(cosine_learning_rate(1.0, 10, 100, 1), 0.1);
  EXPECT_DOUBLE_EQ(cosine_learning_rate(1.0, 10, 100, 10), 1.0);
  double last = 1.0;
  for (int step = 11; step <= 100; ++step) {
    const double rate = cosine_learning_rate(1.0, 10, 100, step);
    EXPECT_LT(rate, last);
    EXPECT_GT(rate, 0);
    last = rate;
  }
  EXPECT_LT(last, 1e-3);
  EXPECT_DOUBLE_EQ(cosine_learning_rate(0.5, 0, 10, 1), 0.25 * (1 + std::cos(M_PI / 11)));
}

}  // namespace
}  // namespace seer
