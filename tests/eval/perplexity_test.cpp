#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tensor_file.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using nlohmann::json;

TEST(PerplexityGolden, WindowsLossesAndPerplexity) {
  const fs::path path = test::golden_path("eval/ppl.jsonl");
  if (path.empty()) GTEST_SKIP() << "no golden eval/ppl.jsonl";
  std::ifstream file(path);
  std::string line;
  int cases = 0;
  while (std::getline(file, line)) {
    SCOPED_TRACE(++cases);
    const json record = json::parse(line);
    const bool start_token = record["bos"];
    const std::int64_t stride = record["truncate"] ? 0 : record["sliding_window"].get<std::int64_t>();
    std::size_t next = 0;
    std::vector<double> losses;
    for (std::size_t d = 0; d < record["nll"].size(); ++d) {
      std::vector<float> logprobs;
      for (const json& nll : record["nll"][d]) logprobs.push_back(-nll.get<float>());
      const auto windows = perplexity_windows(static_cast<std::int64_t>(logprobs.size()), start_token,
                                              record["max_length"], stride);
      for (const PplWindow& window : windows) {
        ASSERT_LT(next, record["windows"].size());
        const json& expected = record["windows"][next++];
        EXPECT_EQ(expected["doc"], d);
        EXPECT_EQ(window.begin, expected["begin"]);
        EXPECT_EQ(window.end, expected["end"]);
        EXPECT_EQ(window.first_counted, expected["first_counted"]);
        EXPECT_EQ(window.end - window.first_counted, expected["counted"]);
        losses.push_back(mean_nll(
            std::span(logprobs).subspan(static_cast<std::size_t>(window.first_counted),
                                        static_cast<std::size_t>(window.end - window.first_counted))));
        // The expected value was added up in float32.
        EXPECT_NEAR(losses.back(), expected["loss"], 1e-6 * (1 + losses.back()));
      }
    }
    EXPECT_EQ(next, record["windows"].size());
    const double perplexity = perplexity_of(losses);
    EXPECT_NEAR(perplexity, record["perplexity"], 2e-6 * perplexity);
    EXPECT_EQ(fmt::format("{:.2f}", perplexity), record["printed"]);
  }
  EXPECT_GT(cases, 0);
}

TEST(Perplexity, RefusesStridesThatSkipTokens) {
  EXPECT_THROW(perplexity_windows(100, true, 16, 16), Error);
  EXPECT_EQ(perplexity_windows(100, false, 16, 16).size(), 7u);
  EXPECT_THROW(perplexity_windows(100, false, 1, 0), Error);
}

TEST(Perplexity, DenseComesFirstAndOnce) {
  const std::vector<SelectorKind> selectors{SelectorKind::kGate, SelectorKind::kDense, SelectorKind::kLocal};
  const auto settings =
      eval_settings(selectors, SparsityOptions::Rule::kAdaptive, std::vector{0.5, 0.1}, false);
  ASSERT_EQ(settings.size(), 5u);
  EXPECT_EQ(settings[0].rule_name(), "dense");
  EXPECT_EQ(settings[1].rule_name(), "adaptive");
  EXPECT_EQ(settings[2].sparsity.value, 0.1);
  EXPECT_EQ(settings[3].selector, SelectorKind::kLocal);
  EXPECT_EQ(settings[3].rule_name(), "adaptive");
  EXPECT_EQ((PplRow{.length = 8, .setting = settings[3]}).rule_name(), "nz_ratio");
}

class EvalDataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ("seer_data_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  fs::path folder_;
};

TEST_F(EvalDataTest, JsonLinesAreDocumentsOfTheirOwn) {
  const std::string path = write("docs.jsonl",
                                 "{\"input_ids\": [1, 2]}\n{\"input_ids\": [3, 4, 5]}\n"
                                 "{\"input_ids\": [6, 7, 8, 9]}\n");
  const EvalData data = load_eval_data({.path = path, .min_tokens = 3}, nullptr);
  ASSERT_EQ(data.documents.size(), 2u);
  EXPECT_EQ(data.left_out, 1);
  EXPECT_EQ(data.documents[0].ids, (std::vector<std::int32_t>{3, 4, 5}));
  EXPECT_EQ(load_eval_data({.path = path, .min_tokens = 2, .max_documents = 1}, nullptr).documents.size(),
            1u);
  EXPECT_THROW(load_eval_data({.path = path, .min_tokens = 5}, nullptr), Error);
}

TEST_F(EvalDataTest, ShortFilesOfAFolderAreJoined) {
  const Tokenizer tokenizer = Tokenizer::load(test::embedded_model().string());
  write("b.txt", "def second():\n    return 2\n");
  write("a.txt", "def first():\n    return 1\n");
  write("c.txt", "pass\n");
  const auto ids = [&](const std::string& text) { return tokenizer.encode(text, false); };
  std::vector<std::int32_t> joined = ids("def first():\n    return 1\n");
  const auto one = static_cast<std::int64_t>(joined.size());
  for (const std::int32_t id : ids("def second():\n    return 2\n")) joined.push_back(id);

  const EvalData data = load_eval_data({.path = folder_.string(), .min_tokens = one + 1}, &tokenizer);
  ASSERT_EQ(data.documents.size(), 1u);
  EXPECT_EQ(data.documents[0].ids, joined);
  EXPECT_EQ(data.left_out, 1);
  EXPECT_EQ(load_eval_data({.path = folder_.string(), .min_tokens = 1}, &tokenizer).documents.size(), 3u);
}

}  // namespace
}  // namespace seer
