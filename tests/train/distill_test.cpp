#include "train/distill.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/check.h"
#include "io/tensor_file.h"
#include "model/cpu_transformer.h"
#include "support/golden.h"
#include "train/calibrate.h"
#include "train/corpus.h"

namespace seer {
namespace {

namespace fs = std::filesystem;

/// A model of two layers, a temporary folder, and a few short sequences.
class Distill : public ::testing::Test {
 protected:
  Distill()
      : config(load_model_config(model_folder)),
        weights(std::make_shared<ModelWeights>(ModelWeights::load(model_folder, config))),
        transformer(weights, config, Context(2), transformer_options()),
        folder(fs::temp_directory_path() / ("seer_distill_test_" + std::to_string(getpid()))) {
    fs::create_directories(folder);
    for (const std::int64_t length : {512, 300, 512, 448, 512}) {
      std::vector<std::int32_t>& tokens = sequences.emplace_back(static_cast<std::size_t>(length));
      for (std::size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<std::int32_t>((i * i * 31 + i * sequences.size() + 3) % 350);
    }
  }
  ~Distill() override { fs::remove_all(folder); }

  static TransformerOptions transformer_options() { return {.kv_dtype = DType::kF32, .max_context = 4096}; }

  DistillOptions options(const std::string& name) const {
    DistillOptions options{.model_folder = model_folder,
                           .out = (folder / name).string(),
                           .learning_rate = 5e-3,
                           .warmup_steps = 2,
                           .steps = 12,
                           .batch = 3,
                           .held_out = 1,
                           .log_every = 1,
                           .evaluate_every = 6,
                           .checkpoint_every = 4,
                           .show_progress = false};
    options.gate.gate_hidden_size = config.head_dim;
    return options;
  }
  std::string weights_of(const DistillOptions& options) const {
    return read_file(options.out + "/attn_gate_weights.safetensors");
  }

  const std::string model_folder = test::golden_path("tiny-qwen2").string();
  ModelConfig config;
  std::shared_ptr<ModelWeights> weights;
  CpuTransformer transformer;
  fs::path folder;
  std::vector<std::vector<std::int32_t>> sequences;
};

TEST_F(Distill, LowersTheLossItTrainsOn) {
  const DistillOptions settings = options("gates");
  const DistillResult result = distill(transformer, sequences, settings);
  EXPECT_TRUE(result.finished);
  std::vector<nlohmann::json> log;
  std::istringstream lines(read_file(settings.out + "/distill.jsonl"));
  for (std::string line; std::getline(lines, line);) log.push_back(nlohmann::json::parse(line));
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  std::vector<double> losses;
  for (const auto& line : log)
    if (line.contains("loss")) losses.push_back(mean(line.at("loss")));
  EXPECT_LT(losses.back(), 0.8 * losses.front());
  for (const double recall : result.quality.recall) {
    EXPECT_GT(recall, 0);
    EXPECT_LT(recall, 1);
  }
  EXPECT_EQ(log.back().at("step"), 12);
  EXPECT_EQ(load_gate(settings.out, config).layers.size(), 2u);
  EXPECT_FALSE(fs::exists(fs::path(settings.out) / "cache"));
  EXPECT_FALSE(fs::exists(fs::path(settings.out) / "checkpoint.safetensors"));
  // A second call finds the work done.
  const DistillResult again = distill(transformer, sequences, settings);
  EXPECT_TRUE(again.finished);
  EXPECT_EQ(again.quality.recall, result.quality.recall);
  EXPECT_FALSE(fs::exists(fs::path(settings.out) / "cache"));
}

TEST_F(Distill, AnInterruptedRunEndsWithTheSameBits) {
  const DistillOptions undisturbed = options("whole");
  ASSERT_TRUE(distill(transformer, sequences, undisturbed).finished);

  DistillOptions interrupted = options("parts");
  // Killed while the model still runs: a whole, a torn and no file of the cache.
  fs::create_directories(interrupted.out);
  {
    DistillOptions first = interrupted;
    first.stop_after = 1;
    ASSERT_FALSE(distill(transformer, sequences, first).finished);
  }
  fs::remove(fs::path(interrupted.out) / "checkpoint.safetensors");
  std::vector<fs::path> cached;
  for (const auto& entry : fs::directory_iterator(fs::path(interrupted.out) / "cache"))
    cached.push_back(entry.path());
  ASSERT_EQ(cached.size(), sequences.size());
  fs::remove(cached[0]);
  // Then killed again and again between steps, the last time right after a checkpoint was due.
  for (const std::int64_t steps : {3, 2, 3}) {
    DistillOptions part = interrupted;
    part.stop_after = steps;
    ASSERT_FALSE(distill(transformer, sequences, part).finished);
  }
  const DistillResult result = distill(transformer, sequences, interrupted);
  EXPECT_TRUE(result.finished);
  EXPECT_TRUE(weights_of(interrupted) == weights_of(undisturbed));
  EXPECT_EQ(read_file(interrupted.out + "/distill.jsonl"), read_file(undisturbed.out + "/distill.jsonl"));
}

TEST_F(Distill, OneThreadGivesTheBitsOfTwo) {
  CpuTransformer single(weights, config, Context(1), transformer_options());
  DistillOptions two = options("two"), one = options("one");
  // Both learn from the same results of the model.
  two.cache = one.cache = (folder / "cache").string();
  two.save.dtype = one.save.dtype = DType::kF32;
  distill(transformer, sequences, two);
  distill(single, sequences, one);
  EXPECT_TRUE(weights_of(two) == weights_of(one));
  EXPECT_TRUE(fs::exists(two.cache));
}

TEST_F(Distill, RefusesAFolderOfAnotherRun) {
  DistillOptions settings = options("gates");
  settings.stop_after = 1;
  distill(transformer, sequences, settings);
  settings.learning_rate = 1e-2;
  EXPECT_THROW(distill(transformer, sequences, settings), Error);
  settings = options("gates");
  settings.held_out = 5;
  EXPECT_THROW(distill(transformer, sequences, settings), Error);
}

TEST_F(Distill, XavierAndTwoMatricesTrainToo) {
  DistillOptions settings = options("gates");
  settings.gate = parse_gate_type("Qmaxminavg_Kmaxminavg");
  settings.gate.gate_hidden_size = 32;
  settings.init = GateInit::kIdentity;
  EXPECT_THROW(distill(transformer, sequences, settings), Error);
  settings.init = GateInit::kXavier;
  settings.steps = 2;
  EXPECT_TRUE(distill(transformer, sequences, settings).finished);
  EXPECT_EQ(load_gate(settings.out, config).layers[0].q_weight.size(), 4 * 192 * 32);
}

TEST_F(Distill, CalibrationMeetsItsDensities) {
  DistillOptions settings = options("gates");
  distill(transformer, sequences, settings);
  Gate gate = load_gate(settings.out, config);
  std::vector<std::int32_t> tokens(2048);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>((i * i * 17 + i) % 350);
  for (const SelectRule rule : {SelectRule::kThreshold, SelectRule::kTopP, SelectRule::kResidual}) {
    gate.calibration = calibrate(transformer, gate, {tokens},
                                 {.lengths = {1024, 2048}, .densities = {0.2, 0.5}, .rule = rule});
    for (const std::int64_t length : {1024, 2048}) {
      for (const double density : {0.2, 0.5}) {
        const auto selector = make_selector(SelectorKind::kGate, {.value = density}, config, &gate, 0);
        Sequence sequence = transformer.new_sequence();
        const PrefillResult result = transformer.prefill(
            sequence,
            {.tokens = std::span<const std::int32_t>(tokens).first(static_cast<std::size_t>(length)),
             .selector = selector.get()});
        EXPECT_NEAR(result.stats.density(), density, 0.05 * density) << length << " tokens";
      }
    }
  }
  EXPECT_THROW(calibrate(transformer, gate, {tokens}, {.lengths = {4096}, .densities = {0.5}}), Error);
  EXPECT_THROW(calibrate(transformer, gate, {tokens}, {.lengths = {1024}, .densities = {1.0}}), Error);
}

TEST(Corpus, PlansAreParsed) {
  const auto plan = parse_sequence_plan("4096:3,512", "--sequences");
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].tokens, 4096);
  EXPECT_EQ(plan[0].count, 3);
  EXPECT_EQ(plan[1].count, 1);
  for (const std::string bad : {"", "x", "12:", ":3", "4:5:6", "0", "-4:1", "4096:3,"})
    EXPECT_THROW(parse_sequence_plan(bad, "--sequences"), Error) << bad;
}

TEST(Corpus, SequencesSpreadOverTheTextWithoutOverlap) {
  const Tokenizer tokenizer = Tokenizer::load(test::embedded_model().string());
  ASSERT_TRUE(tokenizer.bos_id());
  std::vector<Document> documents(40);
  for (std::size_t d = 0; d < documents.size(); ++d)
    for (std::int32_t i = 0; i < 100; ++i)
      documents[d].input_ids.push_back(static_cast<std::int32_t>(100 + d * 100) + i);
  const auto sequences = cut_sequences(documents, tokenizer, {{101, 4}, {301, 2}});
  ASSERT_EQ(sequences.size(), 6u);
  std::set<std::int32_t> seen;
  std::multiset<std::size_t> lengths;
  for (const auto& sequence : sequences) {
    EXPECT_EQ(sequence[0], *tokenizer.bos_id());
    lengths.insert(sequence.size());
    for (std::size_t i = 1; i < sequence.size(); ++i) EXPECT_TRUE(seen.insert(sequence[i]).second);
  }
  EXPECT_EQ(lengths, (std::multiset<std::size_t>{101, 101, 101, 101, 301, 301}));
  EXPECT_GT(*seen.rbegin(), 100 + 40 * 100 * 3 / 4);  // reaches the last quarter
  EXPECT_THROW(cut_sequences(documents, tokenizer, {{101, 60}}), Error);
}

}  // namespace
}  // namespace seer
