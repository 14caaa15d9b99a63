#include "eval/inspect.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "model/cpu_transformer.h"
#include "report_support.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using Rule = SparsityOptions::Rule;

class Inspect : public ::testing::Test {
 protected:
  Inspect()
      : config_(load_model_config(embedded_model())),
        model_(std::make_shared<ModelWeights>(ModelWeights::load(embedded_model(), config_)), config_,
               Context(1), {.kv_dtype = DType::kF32, .allow_bf16 = false, .chunk_tokens = 256}) {
    for (int i = 0; i < 600; ++i) tokens_.push_back(10 + (i * i * 7 + i / 3) % 4000);
  }
  Inspection look(std::vector<EvalSetting> settings) {
    return inspect(model_, nullptr,
                   {.tokens = tokens_, .settings = std::move(settings), .layers = {0, 7}, .heads = {1, 2}});
  }
  static EvalSetting setting(SelectorKind kind, Rule rule, double value) {
    return {.selector = kind, .sparsity = {.rule = rule, .value = value}};
  }

  ModelConfig config_;
  CpuTransformer model_;
  std::vector<std::int32_t> tokens_;
};

TEST_F(Inspect, EverythingSelectedHoldsAllMass) {
  const Inspection result = look({setting(SelectorKind::kOracle, Rule::kNzRatio, 1)});
  ASSERT_EQ(result.blocks, 10);
  for (const HeadInspection& head : result.settings[0].heads) {
    EXPECT_EQ(head.selected_blocks, 55);
    EXPECT_EQ(head.causal_blocks, 55);
    EXPECT_NEAR(head.recall, 1, 1e-6);
    EXPECT_NEAR(head.oracle_recall, 1, 1e-6);
  }
}

TEST_F(Inspect, MapsAreNormalisedRowsAcrossChunks) {
  const Inspection result = look({setting(SelectorKind::kLocal, Rule::kNzRatio, 0.3)});
  ASSERT_EQ(result.maps.size(), 4u);
  for (const AttentionMap& map : result.maps) {
    for (std::int64_t row = 0; row < result.blocks; ++row) {
      double sum = 0;
      for (std::int64_t column = 0; column < result.blocks; ++column) {
        const float value = map.values[static_cast<std::size_t>(row * result.blocks + column)];
        EXPECT_TRUE(column <= row || value == 0) << row << ' ' << column;
        sum += value;
      }
      EXPECT_NEAR(sum, 1, 1e-5);
    }
  }
}

TEST_F(Inspect, OracleAgreesWithItsOwnChoiceAndRandomKeepsLess) {
  const Inspection result = look({setting(SelectorKind::kOracle, Rule::kNzRatio, 0.6),
                                  setting(SelectorKind::kRandom, Rule::kNzRatio, 0.6)});
  for (std::size_t i = 0; i < result.settings[0].heads.size(); ++i) {
    const HeadInspection& oracle = result.settings[0].heads[i];
    EXPECT_NEAR(oracle.recall, oracle.oracle_recall, 1e-6);
    EXPECT_GT(oracle.recall, 0);
    EXPECT_LE(oracle.recall, 1);
  }
  EXPECT_LE(result.settings[0].density(), result.settings[1].density());
  // Block maxima are not mass, so single heads may differ; over all heads the oracle has more.
  EXPECT_GT(result.settings[0].recall(), result.settings[1].recall());
}

TEST_F(Inspect, MaskFilesAreRawWords) {
  const Inspection result = look({setting(SelectorKind::kLocal, Rule::kNzRatio, 0.3)});
  const fs::path folder = fs::path(::testing::TempDir()) / "seer_inspect_masks";
  fs::remove_all(folder);
  save_masks(result.settings[0], folder.string());
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    std::ifstream file(folder / fmt::format("layer_{:02}.mask", layer), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    ASSERT_EQ(bytes.size(), static_cast<std::size_t>(config_.num_heads) * 10 * 8);
    for (std::int64_t row = 0; row < 10; ++row) {
      for (std::int64_t block = 0; block < 10; ++block) {
        const auto byte =
            static_cast<unsigned char>(bytes[static_cast<std::size_t>((2 * 10 + row) * 8 + block / 8)]);
        EXPECT_EQ((byte >> block % 8 & 1) != 0,
                  result.settings[0].masks[static_cast<std::size_t>(layer)].test(2, row, block));
      }
    }
  }
  fs::remove_all(folder);
}

TEST_F(Inspect, PageTableAndRowsAgree) {
  const Inspection result = look({setting(SelectorKind::kOracle, Rule::kNzRatio, 0.5),
                                  setting(SelectorKind::kLocal, Rule::kNzRatio, 0.5)});
  const std::string html = inspect_html(result, {{"command", "seer inspect"}});
  expect_well_formed_and_alone(html);
  EXPECT_EQ(count(html, "<img "), 4u * 3);
  const auto rows = nlohmann::json::parse(inspect_json(result, "\"seed\":3"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["seed"], 3);
  EXPECT_EQ(rows[1]["head_recall"][7][2], result.settings[1].head(7, 2).recall);
  EXPECT_NE(inspect_table(result).find(fmt::format("{:.4f}", result.settings[1].recall(5))),
            std::string::npos);
  const fs::path file = fs::path(::testing::TempDir()) / "seer_inspect_rows.json";
  std::ofstream(file) << rows.dump();
  EXPECT_EQ(read_report_run(file.string()).inspections.size(), 2u);
  fs::remove(file);
}

TEST_F(Inspect, WrongLayerIsNamed) {
  EXPECT_THROW(inspect(model_, nullptr, {.tokens = tokens_, .layers = {8}, .heads = {0}}), Error);
}

}  // namespace
}  // namespace seer::test
