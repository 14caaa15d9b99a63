#include "seer/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "support/decode_gate.h"
#include "support/golden.h"

namespace seer {
namespace {

std::string gates() { return test::embedded_model().string() + "-gates"; }

const std::string kPrompt = "import os\n\n\ndef read(path):\n    with open(path) as file:\n        return";

TEST(Model, CompletesAText) {
  Model model(test::embedded_model().string(), {.threads = 2});
  std::string streamed;
  const Completion completion = model.complete(
      kPrompt, {.max_new_tokens = 8, .on_text = [&](std::string_view piece) { streamed += piece; }});
  EXPECT_EQ(completion.tokens.size(), 8u);
  EXPECT_EQ(completion.finish, "length");
  EXPECT_EQ(completion.text, streamed);
  EXPECT_EQ(completion.text, model.decode(completion.tokens));
  EXPECT_EQ(completion.prompt_tokens, static_cast<std::int64_t>(model.encode(kPrompt).size()));
  EXPECT_EQ(completion.density, 1.0);
}

TEST(Model, SparsityNeedsAGateAndSaysSo) {
  Model model(test::embedded_model().string(), {.threads = 2});
  EXPECT_FALSE(model.has_gate());
  EXPECT_THROW(model.complete(kPrompt, {.sparsity = {.value = 0.5}}), Error);
  model.load_gate(gates());
  EXPECT_TRUE(model.has_gate());
  std::string text;
  while (text.size() < 8000) text += kPrompt + " file.read()\n";
  const Completion completion = model.complete(text, {.sparsity = {.value = 0.5}, .max_new_tokens = 2});
  EXPECT_NEAR(completion.density, 0.5, 0.1);
  EXPECT_THROW(model.complete(text, {.sparsity = {.value = 1.5}}), Error);
}

TEST(Model, DecodesByABudgetOrAThreshold) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "seer_api_decode_gate";
  test::write_decode_gate(folder);
  Model model(test::embedded_model().string(), {.threads = 2});
  std::string text;
  while (text.size() < 4000) text += kPrompt + " file.read()\n";
  EXPECT_THROW(model.complete(text, {.token_budget = 128}), Error);
  model.load_decode_gate(folder.string());
  const Completion dense = model.complete(text, {.max_new_tokens = 4, .ignore_eos = true});
  const Completion sparse =
      model.complete(text, {.token_budget = 128, .max_new_tokens = 4, .ignore_eos = true});
  EXPECT_EQ(dense.decode_density, 1.0);
  EXPECT_LT(sparse.decode_density, 0.5);
  EXPECT_GT(sparse.decode_density, 0.0);
  const Completion all =
      model.complete(text, {.token_budget = 1 << 20, .max_new_tokens = 4, .ignore_eos = true});
  EXPECT_EQ(all.tokens, dense.tokens);
  EXPECT_EQ(all.decode_density, 1.0);
  EXPECT_LT(
      model.complete(text, {.decode_threshold = 0.1, .max_new_tokens = 4, .ignore_eos = true}).decode_density,
      1.0);
  EXPECT_THROW(model.complete(text, {.token_budget = 128, .decode_threshold = 0.1}), Error);
  EXPECT_THROW(model.complete(text, {.token_budget = 8}), Error);
  std::filesystem::remove_all(folder);
}

TEST(Model, ScoresAddUpToCompletions) {
  Model model(test::embedded_model().string(), {.dtype = "float32", .threads = 2, .max_context = 256});
  EXPECT_EQ(model.max_context(), 256);
  const std::vector<std::int32_t> tokens = model.encode(kPrompt);
  const Scores scores = model.score(tokens);
  ASSERT_EQ(scores.logprobs.size(), tokens.size() - 1);
  for (const float logprob : scores.logprobs) EXPECT_LE(logprob, 0.0f);
  EXPECT_THROW(model.score(std::vector<std::int32_t>(257, 5)), Error);
  EXPECT_THROW(model.score(std::vector<std::int32_t>{1, 1 << 30}), Error);
  EXPECT_THROW(Model("nowhere"), Error);
  EXPECT_THROW(Model(test::embedded_model().string(), {.device = "tpu"}), Error);
}

TEST(Model, Moves) {
  Model first(test::embedded_model().string(), {.threads = 1});
  Model second = std::move(first);
  EXPECT_EQ(second.vocab_size(), 4096);
}

}  // namespace
}  // namespace seer
