#include "cuda/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "cuda/device_array.h"
#include "model/sampler.h"
#include "support.h"

namespace seer::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<TokenDraw> draws_of_every_kind() {
  const std::vector<TokenDraw> kinds{
      {},
      {.temperature = 1},
      {.temperature = 1, .min_p = 0.1f},
      {.temperature = 0.6f, .top_k = 50},
      {.temperature = 1, .top_p = 0.9f},
      {.temperature = 1.5f, .top_p = 0.8f, .min_p = 0.02f, .top_k = 200},
      {.temperature = 1, .top_k = 1},
      {.temperature = 1, .top_k = std::numeric_limits<std::int32_t>::max()},
      {.temperature = 1, .top_p = 1e-12f},
      {.temperature = 1e-42f},
      {.temperature = 1e35f},
      {.temperature = 1e35f, .top_p = 0.5f, .top_k = 3},
  };
  std::vector<TokenDraw> draws;
  for (std::size_t kind = 0; kind < kinds.size(); ++kind)
    for (const double uniform : {0.0, 1 - 0x1p-53, 0.5, static_cast<double>(hash(1, kind, 0) >> 11) * 0x1p-53,
                                 static_cast<double>(hash(2, kind, 0) >> 11) * 0x1p-53}) {
      draws.push_back(kinds[kind]);
      draws.back().uniform = uniform;
    }
  return draws;
}

/// The share of all weight that lies between two tokens in the order of TokenDraw; 0 if they are the same.
double weight_between(std::span<const float> logits, const TokenDraw& draw, std::int32_t a, std::int32_t b) {
  if (a == b) return 0;
  if (draw.temperature == 0) return 1;
  const float largest = *std::max_element(logits.begin(), logits.end());
  const auto key = [&](std::size_t id) { return std::pair(largest - logits[id], id); };
  const auto [first, last] = std::minmax(key(static_cast<std::size_t>(a)), key(static_cast<std::size_t>(b)));
  double between = 0, total = 0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const double weight = std::exp(-(static_cast<double>(largest) - logits[id]) / draw.temperature);
    total += weight;
    if (first < key(id) && key(id) <= last) between += weight;
  }
  return between / total;
}

class CudaSample : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }

  static std::vector<std::int32_t> sampled(const std::vector<float>& logits,
                                           const std::vector<TokenDraw>& draws) {
    const auto rows = static_cast<std::int64_t>(draws.size());
    const DeviceArray<float> device_logits{std::span(logits)};
    const DeviceArray<TokenDraw> device_draws{std::span(draws)};
    DeviceArray<std::int32_t> out(rows);
    out.fill_bytes(0x7f);
    sample(device_logits.data(), rows, static_cast<std::int64_t>(logits.size()) / rows, device_draws.data(),
           out.data(), nullptr);
    return out.download();
  }

  /// Each row's token is the CPU's, or next to it: a cumulative weight within rounding of a cut. One token
  /// more or less in the kept set moves the point by its weight at most.
  static void expect_tokens_of_the_cpu(const std::vector<float>& logits,
                                       const std::vector<TokenDraw>& draws) {
    const std::vector<std::int32_t> actual = sampled(logits, draws);
    const std::size_t vocab = logits.size() / draws.size();
    std::size_t same = 0;
    for (std::size_t row = 0; row < draws.size(); ++row) {
      SCOPED_TRACE("row " + std::to_string(row));
      const auto values = std::span(logits).subspan(row * vocab, vocab);
      const std::int32_t expected = draw_token(values, draws[row]);
      ASSERT_GE(actual[row], 0);
      ASSERT_LT(static_cast<std::size_t>(actual[row]), vocab);
      const double between = weight_between(values, draws[row], actual[row], expected);
      ASSERT_LE(between, 2e-5) << actual[row] << ", expected " << expected;
      same += actual[row] == expected;
    }
    EXPECT_GE(static_cast<double>(same), 0.9 * static_cast<double>(draws.size()));
    EXPECT_EQ(sampled(logits, draws), actual) << "the same inputs, other tokens";
  }
};

TEST_F(CudaSample, TokensAreThoseOfTheCpu) {
  const std::vector<TokenDraw> draws = draws_of_every_kind();
  for (const std::size_t vocab : {1, 2, 7, 1000, 32003, 151936}) {
    SCOPED_TRACE("vocab " + std::to_string(vocab));
    std::vector<float> logits(draws.size() * vocab);
    for (std::size_t i = 0; i < logits.size(); ++i)
      logits[i] = static_cast<float>(hash(i, vocab, 7) >> 40) * 0x1p-24f * 30 - 20;
    expect_tokens_of_the_cpu(logits, draws);
  }
}

TEST_F(CudaSample, TiesAreCutByTheTokensNumber) {
  const std::vector<TokenDraw> draws = draws_of_every_kind();
  for (const std::size_t vocab : {9, 5000, 40000}) {
    for (const int levels : {1, 2, 12}) {
      SCOPED_TRACE("vocab " + std::to_string(vocab) + ", levels " + std::to_string(levels));
      std::vector<float> logits(draws.size() * vocab);
      for (std::size_t i = 0; i < logits.size(); ++i) {
        const auto level = static_cast<int>(hash(i, vocab, 3) % static_cast<unsigned>(levels));
        logits[i] = level == 11 ? -kInfinity : level % 2 == 0 ? -0.25f * static_cast<float>(level) : -0.0f;
      }
      expect_tokens_of_the_cpu(logits, draws);
    }
  }
}

TEST_F(CudaSample, RefusesNaNAndAnInfiniteLargest) {
  constexpr std::size_t kVocab = 20000;
  const TokenDraw drawn{.uniform = 0.5, .temperature = 1, .top_p = 0.9f};
  const std::vector<TokenDraw> draws{drawn, drawn, {}, drawn, drawn, {}};
  std::vector<float> logits(draws.size() * kVocab, 1.0f);
  logits[1 * kVocab + 12345] = NAN;
  logits[2 * kVocab + kVocab - 1] = -NAN;
  logits[3 * kVocab + 7] = kInfinity;
  std::fill_n(logits.begin() + 4 * kVocab, kVocab, -kInfinity);
  logits[5 * kVocab + 77] = kInfinity;
  const std::vector<std::int32_t> tokens = sampled(logits, draws);
  EXPECT_EQ(tokens[0], draw_token(std::span(logits).first(kVocab), drawn));
  for (const std::size_t refused : {1, 2, 3, 4}) EXPECT_EQ(tokens[refused], -1) << refused;
  EXPECT_EQ(tokens[5], 77);
}

}  // namespace
}  // namespace seer::cuda
