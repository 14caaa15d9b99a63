#include "model/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/check.h"
#include "model/cpu_transformer.h"
#include "support/golden.h"

namespace seer {
namespace {

std::map<std::int32_t, int> draws(const SamplingOptions& options, std::vector<float> logits,
                                  std::vector<std::int32_t> seen = {}, int count = 4000) {
  Sampler sampler(options, 0);
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < count; ++i) {
    std::vector<float> copy = logits;
    ++counts[sampler.sample(copy, seen)];
  }
  return counts;
}

TEST(Sampler, GreedyTakesTheFirstLargest) {
  EXPECT_EQ(draws({}, {1, 3, 3, 2}, {}, 1), (std::map<std::int32_t, int>{{1, 1}}));
}

TEST(Sampler, FollowsTheSoftmax) {
  const auto counts = draws({.temperature = 2}, {std::log(4.0f) * 2, std::log(1.0f) * 2, std::log(5.0f) * 2});
  // Three standard deviations of 4000 draws.
  EXPECT_NEAR(counts.at(0), 1600, 93);
  EXPECT_NEAR(counts.at(1), 400, 57);
  EXPECT_NEAR(counts.at(2), 2000, 95);
}

TEST(Sampler, FiltersKeepWhatTheyShould) {
  const std::vector<float> logits{std::log(0.4f), std::log(0.1f), std::log(0.3f), std::log(0.2f)};
  const auto kept = [&](const SamplingOptions& options) {
    std::vector<std::int32_t> ids;
    for (const auto& [id, count] : draws(options, logits)) ids.push_back(id);
    return ids;
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(kept({.temperature = 1}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept({.temperature = 1, .top_k = 2}), (Ids{0, 2}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.69f}), (Ids{0, 2}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.71f}), (Ids{0, 2, 3}));
  EXPECT_EQ(kept({.temperature = 1, .min_p = 0.45f}), (Ids{0, 2, 3}));
  EXPECT_EQ(kept({.temperature = 1, .top_k = 1}), (Ids{0}));
}

TEST(Sampler, RepetitionPenaltyWorksOnBothSigns) {
  std::vector<float> logits{2.0f, 1.5f, -1.0f, -1.5f};
  const std::vector<std::int32_t> seen{0, 0, 2};
  Sampler({.repetition_penalty = 2}, 0).sample(logits, seen);
  EXPECT_EQ(logits, (std::vector<float>{1.0f, 1.5f, -2.0f, -1.5f}));
}

TEST(Sampler, SeedsAndStreamsDecide) {
  const std::vector<float> flat(50, 0.0f);
  const auto first_of = [&](std::uint64_t seed, std::uint64_t stream) {
    Sampler sampler({.temperature = 1, .seed = seed}, stream);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 8; ++i) {
      std::vector<float> copy = flat;
      ids.push_back(sampler.sample(copy, {}));
    }
    return ids;
  };
  EXPECT_EQ(first_of(1, 0), first_of(1, 0));
  EXPECT_NE(first_of(1, 0), first_of(2, 0));
  EXPECT_NE(first_of(1, 0), first_of(1, 1));
}

TEST(Sampler, ExtremeTemperaturesStayInRange) {
  const std::vector<float> logits{3, -90, 3.5f, 1};
  for (const double uniform : {0.0, 0.3, 0.9}) {
    EXPECT_EQ(draw_token(logits, {.uniform = uniform, .temperature = 1e-42f, .top_p = 0.9f}), 2);
    // All weigh the same; the order stays.
    EXPECT_EQ(draw_token(logits, {.uniform = uniform, .temperature = 1e35f, .top_p = 0.5f}),
              uniform < 0.5 ? 2 : 0);
  }
}

TEST(Sampler, RefusesOptionsAndNaN) {
  EXPECT_THROW(validate({.temperature = -1}), Error);
  EXPECT_THROW(validate({.top_p = 0}), Error);
  EXPECT_THROW(validate({.min_p = 2}), Error);
  EXPECT_THROW(validate({.top_k = -1}), Error);
  EXPECT_THROW(validate({.repetition_penalty = 0}), Error);
  std::vector<float> logits{0, NAN};
  EXPECT_THROW(Sampler({}, 0).sample(logits, {}), Error);
  std::vector<float> infinite{0, INFINITY};
  EXPECT_THROW(Sampler({.temperature = 1}, 0).sample(infinite, {}), Error);
}

TEST(StopScanner, HoldsBackWhatMayBecomeAStop) {
  StopScanner scanner({"END", "\n\n"});
  EXPECT_EQ(scanner.push("abE"), "ab");
  EXPECT_EQ(scanner.push("N"), "");
  EXPECT_EQ(scanner.push("x\n"), "ENx");
  EXPECT_EQ(scanner.push("yEND and more"), "\ny");
  EXPECT_TRUE(scanner.found());
  EXPECT_EQ(scanner.push("later"), "");
  EXPECT_EQ(scanner.finish(), "");
}

TEST(StopScanner, EarliestStopWinsAndTheRestIsReleased) {
  StopScanner scanner({"bc", "abcd"});
  EXPECT_EQ(scanner.push("xxab"), "xx");
  EXPECT_EQ(scanner.push("q"), "abq");
  EXPECT_EQ(scanner.push("abc"), "a");
  EXPECT_TRUE(scanner.found());
  StopScanner open({"stop"});
  EXPECT_EQ(open.push("sto"), "");
  EXPECT_EQ(open.finish(), "sto");
}

class GenerateTest : public ::testing::Test {
 protected:
  GenerateTest()
      : folder(test::embedded_model()),
        config(load_model_config(folder)),
        model(std::make_shared<ModelWeights>(ModelWeights::load(folder, config)), config, Context(),
              {.kv_dtype = DType::kF32, .allow_bf16 = false}),
        tokenizer(Tokenizer::load(folder)) {}
  std::string folder;
  ModelConfig config;
  CpuTransformer model;
  Tokenizer tokenizer;
};

TEST_F(GenerateTest, BatchAndStreamAgreeWithSinglePrompts) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (const char* text : {"def fibonacci(n):\n", "import os\nimport sys\n\n\nclass "})
    prompts.push_back(tokenizer.encode(text));
  const GenerateOptions options{.max_new_tokens = 24};
  std::map<std::size_t, std::string> streamed;
  const GenerateResult batch =
      generate(model, tokenizer, prompts, options, nullptr,
               [&](std::size_t prompt, std::string_view piece) { streamed[prompt] += piece; });
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const GenerateResult single =
        generate(model, tokenizer, std::span(prompts).subspan(i, 1), options, nullptr);
    EXPECT_EQ(batch.generations[i].tokens, single.generations[0].tokens);
    EXPECT_EQ(batch.generations[i].text, single.generations[0].text);
    EXPECT_EQ(batch.generations[i].text, streamed[i]);
    EXPECT_EQ(batch.generations[i].text, tokenizer.decode(batch.generations[i].tokens));
    EXPECT_EQ(batch.generations[i].tokens.size(), 24u);
    EXPECT_EQ(batch.generations[i].reason, FinishReason::kLength);
  }
}

TEST_F(GenerateTest, DrawnTokensDoNotDependOnWhoDraws) {
  const std::vector<std::vector<std::int32_t>> prompts{tokenizer.encode("def fibonacci(n):\n")};
  // Both draw a token every step; min_new_tokens has it drawn from logits outside the model.
  GenerateOptions options{.sampling = {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .seed = 3},
                          .max_new_tokens = 20,
                          .ignore_eos = true};
  const auto inside = generate(model, tokenizer, prompts, options, nullptr).generations[0].tokens;
  options.min_new_tokens = 20;
  options.end_tokens = {static_cast<std::int32_t>(config.vocab_size)};  // none
  EXPECT_EQ(inside, generate(model, tokenizer, prompts, options, nullptr).generations[0].tokens);
}

TEST_F(GenerateTest, StopStringsCutTheText) {
  const std::vector<std::vector<std::int32_t>> prompts{tokenizer.encode("def fibonacci(n):\n")};
  const auto whole = generate(model, tokenizer, prompts, {.max_new_tokens = 32}, nullptr).generations[0].text;
  ASSERT_GT(whole.size(), 12u);
  const std::string stop = whole.substr(8, 3);
  const auto cut = generate(model, tokenizer, prompts, {.max_new_tokens = 32, .stop = {stop}}, nullptr);
  EXPECT_EQ(cut.generations[0].text, whole.substr(0, whole.find(stop)));
  EXPECT_EQ(cut.generations[0].reason, FinishReason::kStop);
}

}  // namespace
}  // namespace seer
