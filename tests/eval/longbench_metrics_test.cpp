#include "eval/longbench_metrics.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "eval/python_text.h"
#include "support/errors.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using nlohmann::json;

std::vector<std::string> strings(const json& list) {
  return list.is_null() ? std::vector<std::string>() : list.get<std::vector<std::string>>();
}

TEST(LongBenchMetricsGolden, ScoresOfTheHarness) {
  const fs::path path = test::golden_path("eval/longbench_metrics.jsonl");
  if (path.empty()) GTEST_SKIP() << "no golden eval/longbench_metrics.jsonl";
  std::ifstream file(path, std::ios::binary);
  std::map<std::string, int> cases;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const json record = json::parse(line);
    const LongBenchTask& task = find_longbench_task(record["dataset"].get<std::string>(), "dataset");
    const double score = longbench_score(task, record["prediction"].get<std::string>(),
                                         strings(record["ground_truths"]), strings(record["all_classes"]));
    EXPECT_NEAR(score, record["score"].get<double>(), 1e-12) << "line " << number << ": " << line;
    ++cases[record["metric"]];
  }
  EXPECT_EQ(cases.size(), 6u);
}

TEST(LongBenchMetrics, RougeGivesUpWhereTheHarnessDoes) {
  // n equal words are a walk of n steps.
  const auto words = [](int count) {
    std::string text = "first";
    for (int i = 1; i < count; ++i) text += " w" + std::to_string(i);
    return text;
  };
  EXPECT_NEAR(rouge_l(words(990), words(990)), 1, 1e-8);
  EXPECT_EQ(rouge_l(words(991), words(991)), 0);
  EXPECT_EQ(rouge_l(words(1500), words(1200)), 0);
  EXPECT_EQ(rouge_l(words(1500), words(3)), 0);  // few words in common, but a long way to them
  EXPECT_EQ(rouge_l("", "a"), 0);
  EXPECT_EQ(rouge_l("a", "..."), 0);
}

TEST(LongBenchMetrics, RetrievalNeedsAParagraphToFind) {
  EXPECT_EQ(retrieval_score("Paragraph 12, paragraph 3", "Paragraph 12"), 0.5);
  EXPECT_EQ(retrieval_score("12", "Paragraph x, Paragraph 12"), 1);
  EXPECT_THROW(retrieval_score("12", "12"), Error);
}

TEST(LongBenchTasks, ThirteenTasksMakeLongBenchE) {
  int in_e = 0;
  for (const LongBenchTask& task : longbench_tasks()) in_e += task.in_e;
  EXPECT_EQ(in_e, 13);
  EXPECT_TRUE(test::error_names([] { find_longbench_task("hotpot", "--tasks"); },
                                {"--tasks", "hotpotqa", "'hotpot'"}));
}

TEST(PythonText, LowerKnowsTheFinalSigma) {
  EXPECT_EQ(python_lower(U"ΟΔΟΣ ΣΑΣ'Σ Σ"), U"οδος σασ'ς σ");
  EXPECT_EQ(python_lower(U"\u0130X\u2160"), U"i\u0307x\u2170");
}

TEST(PythonText, SplitsAtUnicodeWhiteSpace) {
  EXPECT_EQ(python_split(U"\u3000a\x1c\u00a0b c\u200bd\x85"),
            (std::vector<std::u32string>{U"a", U"b", U"c\u200bd"}));
  EXPECT_TRUE(python_split(U" \n").empty());
}

TEST(PythonText, FloatsAreWrittenAndRoundedAsPythonDoes) {
  EXPECT_EQ(python_float(0.002), "0.002");
  EXPECT_EQ(python_float(1e-5), "1e-05");
  EXPECT_EQ(python_float(50), "50.0");
  EXPECT_EQ(python_float(NAN), "NaN");
  EXPECT_EQ(python_round(2.675), 2.67);  // a little less than 2.675
  EXPECT_EQ(numpy_round(2.675), 2.68);   // 267.5 after the product
  EXPECT_EQ(python_round(0.125), 0.12);
}

}  // namespace
}  // namespace seer
