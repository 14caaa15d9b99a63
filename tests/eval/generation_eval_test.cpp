// The runner of evaluations that generate.
#include "eval/generation_eval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/check.h"
#include "model/cpu_transformer.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Rule = SparsityOptions::Rule;

class GenerationEval : public ::testing::Test {
 protected:
  GenerationEval()
      : folder_(test::embedded_model()),
        config_(load_model_config(folder_)),
        model_(std::make_shared<ModelWeights>(ModelWeights::load(folder_, config_)), config_, Context(1),
               {.max_context = 600}),
        tokenizer_(Tokenizer::load(folder_)) {
    for (int i = 0; i < 5; ++i) {
      GenerationSample sample{.task = i < 3 ? "a" : "b",
                              .id = std::to_string(i),
                              .bucket = "short",
                              .source = "data.jsonl:" + std::to_string(i + 1),
                              .max_new_tokens = 6 + i};
      for (int t = 0; t < 300 + 40 * i; ++t)
        sample.prompt.push_back(10 + (t * t * 7 + i * 131 + t / 3) % 4000);
      samples_.push_back(std::move(sample));
    }
    request_.label = "test";
    request_.score = [](std::size_t, std::string_view prediction) {
      return static_cast<double>(prediction.size());
    };
    request_.settings = eval_settings(std::vector{SelectorKind::kLocal, SelectorKind::kDense}, Rule::kNzRatio,
                                      std::vector{0.3}, false);
  }

  GenerationResults run(SampleLog* log = nullptr) {
    return evaluate_generation(model_, tokenizer_, nullptr, samples_, request_, log, false);
  }

  std::string folder_;
  ModelConfig config_;
  CpuTransformer model_;
  Tokenizer tokenizer_;
  std::vector<GenerationSample> samples_;
  GenerationRequest request_;
};

TEST_F(GenerationEval, PredictionsDoNotDependOnTheBatch) {
  const GenerationResults results = run();
  EXPECT_EQ(results.failed, 0);
  for (std::size_t i = 0; i < samples_.size(); ++i) {
    for (std::size_t s = 0; s < request_.settings.size(); ++s) {
      const auto selector =
          make_selector(request_.settings[s].selector, request_.settings[s].sparsity, config_, nullptr, 0);
      const std::vector<std::vector<std::int32_t>> prompt{samples_[i].prompt};
      const GenerateResult alone = generate(model_, tokenizer_, prompt,
                                            {.max_new_tokens = samples_[i].max_new_tokens}, selector.get());
      const GenerationRecord& record = *results.records[i][s];
      EXPECT_EQ(record.tokens, alone.generations[0].tokens);
      EXPECT_EQ(record.prediction, alone.generations[0].text);
      EXPECT_EQ(record.finish, name_of(alone.generations[0].reason));
      EXPECT_EQ(record.score, static_cast<double>(record.prediction.size()));
      EXPECT_EQ(record.selected_blocks, alone.generations[0].prefill.selected_blocks);
      EXPECT_GT(record.ttft_seconds, 0);
    }
    EXPECT_EQ(results.records[i][0]->selected_blocks, results.records[i][0]->causal_blocks);
    EXPECT_LT(results.records[i][1]->selected_blocks, results.records[i][1]->causal_blocks);
  }
}

TEST_F(GenerationEval, BadSamplesAreCountedAndTheOthersRun) {
  samples_[1].prompt.clear();
  samples_[2].prompt.resize(601, 5);
  samples_[3].defect = "no answer";
  std::vector<std::size_t> order;
  const GenerationResults results =
      evaluate_generation(model_, tokenizer_, nullptr, samples_, request_, nullptr, false,
                          [&](std::size_t i, const GenerationResults& so_far) {
                            EXPECT_EQ(so_far.records[i][0].has_value(), i == 0 || i == 4);
                            order.push_back(i);
                          });
  EXPECT_EQ(results.failed, 3);
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 2, 3, 4}));
  const GenerationSummary sum = summarize(results, order, 1);
  EXPECT_EQ(sum.samples, 2);
  EXPECT_EQ(sum.failed, 3);
}

TEST_F(GenerationEval, LoggedRecordsAreUsedAndNeverRepeated) {
  const std::string path = (fs::path(::testing::TempDir()) / "seer_generation.jsonl").string();
  fs::remove(path);
  samples_[0].members = R"("depth":0.5)";
  GenerationResults first;
  {
    SampleLog log(path);
    first = run(&log);
    EXPECT_EQ(log.size(), 10u);
  }
  SampleLog log(path);
  const GenerationResults again = run(&log);
  EXPECT_EQ(log.size(), 10u);
  for (std::size_t i = 0; i < samples_.size(); ++i) {
    for (std::size_t s = 0; s < 2; ++s) {
      EXPECT_EQ(again.records[i][s]->tokens, first.records[i][s]->tokens);
      EXPECT_EQ(again.records[i][s]->prediction, first.records[i][s]->prediction);
      EXPECT_EQ(again.records[i][s]->ttft_seconds, first.records[i][s]->ttft_seconds);
      EXPECT_EQ(again.records[i][s]->score, first.records[i][s]->score);
    }
  }
  samples_[4].max_new_tokens = 3;
  run(&log);
  EXPECT_EQ(log.size(), 12u);
}

TEST_F(GenerationEval, EndTokensAndTheLeastLength) {
  samples_.resize(1);
  samples_[0].max_new_tokens = 8;
  const std::vector<std::int32_t> free = run().records[0][0]->tokens;
  ASSERT_EQ(free.size(), 8u);
  samples_[0].end_tokens = {free[0]};
  GenerationRecord record = *run().records[0][0];
  EXPECT_TRUE(record.tokens.empty());
  EXPECT_EQ(record.prediction, "");
  EXPECT_EQ(record.finish, "eos");
  samples_[0].min_new_tokens = 1;
  record = *run().records[0][0];
  ASSERT_FALSE(record.tokens.empty());
  EXPECT_NE(record.tokens[0], free[0]);
}

TEST_F(GenerationEval, BaselinesNeedTheGateWhoseBlocksTheyMatch) {
  request_.settings =
      eval_settings(std::vector{SelectorKind::kLocal}, Rule::kThreshold, std::vector{5e-4}, true);
  EXPECT_THROW(run(), Error);
}

TEST_F(GenerationEval, BaselinesComputeAsManyBlocksAsTheGate) {
  // A gate that predicts something or other.
  Gate gate;
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    Buffer<float> weights(std::int64_t{config_.num_heads} * 3 * config_.head_dim *
                          gate.config.gate_hidden_size);
    for (std::int64_t i = 0; i < weights.size(); ++i)
      weights[i] = 0.01f * static_cast<float>((i * 7919 + layer * 31) % 201 - 100);
    gate.layers.push_back({.k_weight = std::move(weights)});
  }
  const std::vector kinds{SelectorKind::kRandom, SelectorKind::kLocal, SelectorKind::kGate};
  request_.settings = eval_settings(kinds, Rule::kThreshold, std::vector{0.3}, false);
  samples_.resize(2);
  const GenerationResults results =
      evaluate_generation(model_, tokenizer_, &gate, samples_, request_, nullptr, false);
  ASSERT_EQ(results.failed, 0);
  for (const auto& of_sample : results.records) {
    const GenerationRecord& of_gate = *of_sample[0];
    EXPECT_LT(of_gate.selected_blocks, of_gate.causal_blocks);
    for (std::size_t s : {1, 2}) {
      EXPECT_GE(of_sample[s]->selected_blocks, of_gate.selected_blocks);
      // One block per row less would be too few; a prompt of 300 or 340 tokens has 5 or 6 rows.
      EXPECT_LT(of_sample[s]->selected_blocks - of_sample[s]->causal_blocks / 3, of_gate.selected_blocks);
    }
  }
}

TEST(EqualBlocks, BaselinesGetAtLeastTheGatesBlocksAndNoRowMore) {
  for (const std::int64_t n : {1, 2, 5, 64, 257}) {
    for (const bool last_block_dense : {false, true}) {
      const std::int64_t causal = n * (n + 1) / 2;
      const auto blocks_of = [&](std::int64_t k) {
        BlockMask mask(1, 0, n);
        if (k >= n) return causal;
        select_random({.rule = SelectRule::kNzRatio,
                       .value = 1 - std::pow(1 - (static_cast<double>(k) + 0.5) / static_cast<double>(n), 2),
                       .last_block_dense = last_block_dense,
                       .total_blocks = n},
                      1, 0, mask);
        return mask.selected_blocks();
      };
      for (std::int64_t selected = n; selected <= causal;
           selected += std::max<std::int64_t>(1, causal / 23)) {
        const double nz = nz_ratio_for_blocks(selected, causal, n, last_block_dense);
        const std::int64_t k = nz >= 1 ? n : top_k_for_nz_ratio(nz, n);
        EXPECT_GE(blocks_of(k), selected) << n << " " << selected;
        if (k > 1) {
          EXPECT_LT(blocks_of(k - 1), selected) << n << " " << selected;
        }
      }
    }
  }
}

}  // namespace
}  // namespace seer
