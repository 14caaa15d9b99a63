#include "eval/longbench_eval.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/golden.h"

namespace seer {
namespace {

using Rule = SparsityOptions::Rule;

TEST(LongBenchEval, PredictionsLieWhereTheHarnessPutsThem) {
  const auto folder = [](SelectorKind selector, Rule rule, double value) {
    return longbench_predictions_folder("models/Llama-3.1-8B",
                                        {.selector = selector, .sparsity = {.rule = rule, .value = value}});
  };
  EXPECT_EQ(folder(SelectorKind::kGate, Rule::kThreshold, 2e-3), "Llama-3.1-8B_0.002");
  EXPECT_EQ(folder(SelectorKind::kGate, Rule::kThreshold, 1e-5), "Llama-3.1-8B_1e-05");
  EXPECT_EQ(folder(SelectorKind::kGate, Rule::kAdaptive, 0.1), "Llama-3.1-8B_gate_adaptive_0.1");
  EXPECT_EQ(folder(SelectorKind::kOracle, Rule::kNzRatio, 0.5), "Llama-3.1-8B_oracle_nz_ratio_0.5");
  EXPECT_EQ(folder(SelectorKind::kDense, Rule::kThreshold, 1), "Llama-3.1-8B_dense");
  EXPECT_EQ(longbench_predictions_folder("models/m/", {}), "m_dense");
}

TEST(LongBenchEval, ATaskIsTheMeanOfItsBucketsThatHaveSamples) {
  EXPECT_EQ(longbench_total({.buckets = {10, NAN, 20.02}, .plain = 3}, true), 15.01);
  EXPECT_EQ(longbench_total({.buckets = {10, NAN, 20.02}, .plain = 3}, false), 3);
  EXPECT_TRUE(std::isnan(longbench_total({.buckets = {NAN, NAN, NAN}}, true)));
}

TEST(LongBenchEval, WhatCannotBeAskedOrScoredIsADefect) {
  const Tokenizer tokenizer = Tokenizer::load(test::embedded_model().string());
  const LongBenchSample good{.source = "f:1", .fields = {{"context", "c"}, {"input", "i"}}, .answers = {"a"}};
  LongBenchSample bad_line = good;
  bad_line.defect = "no line";
  const auto defects = [&](const char* task, const char* format, std::vector<LongBenchSample> lines) {
    const std::vector<LongBenchTaskRun> runs{
        {&find_longbench_task(task, "task"), {.format = format, .max_new_tokens = 7}, std::move(lines)}};
    std::vector<std::string> result;
    for (const GenerationSample& sample :
         longbench_generation_samples(Context(2), tokenizer, runs, /*max_prompt_tokens=*/100)) {
      EXPECT_EQ(sample.source, "f:1");
      EXPECT_EQ(sample.prompt.empty(), !sample.defect.empty());
      result.push_back(sample.defect);
    }
    return result;
  };
  EXPECT_EQ(defects("qasper", "{context}", {good, bad_line}), (std::vector<std::string>{"", "no line"}));
  EXPECT_EQ(defects("qasper", "{contexts}", {good}),
            std::vector<std::string>{"dataset2prompt.json: expected a string field 'contexts', found none"});
  EXPECT_EQ(defects("trec", "{context}", {good}),
            std::vector<std::string>{"all_classes: expected the classes of trec, found none"});
  EXPECT_EQ(defects("passage_retrieval_en", "{context}", {good}),
            std::vector<std::string>{"answers: expected \"Paragraph N\", found 'a'"});
}

}  // namespace
}  // namespace seer
