#include "model/gate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tensor_file.h"
#include "model/gate_scorer.h"
#include "support/compare.h"
#include "support/errors.h"
#include "support/golden.h"

namespace seer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A folder that is removed when the test ends.
struct TemporaryFolder {
  fs::path path = fs::temp_directory_path() / ("seer_gate_test_" + std::to_string(getpid()));
  TemporaryFolder() { fs::create_directories(path); }
  ~TemporaryFolder() { fs::remove_all(path); }
};

ModelConfig small_model() {
  ModelConfig model;
  model.model_type = "llama";
  model.num_layers = 2;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  model.head_dim = 16;
  model.max_position_embeddings = 4096;
  model.rope.max_position_embeddings = 4096;
  return model;
}

Gate random_gate(const ModelConfig& model, GateConfig config) {
  Gate gate{.config = std::move(config)};
  for (int layer = 0; layer < model.num_layers; ++layer) {
    GateLayer weights;
    const auto fill = [&](std::int64_t heads, unsigned pools, unsigned seed) {
      Buffer<float> weight(heads * pool_count(pools) * model.head_dim * gate.config.gate_hidden_size);
      test::fill_normal({weight.data(), static_cast<std::size_t>(weight.size())}, seed);
      return weight;
    };
    weights.k_weight = fill(gate.num_k_heads(model), gate.config.k_pools, 2 * static_cast<unsigned>(layer));
    if (gate.config.has_q_linear(model.head_dim))
      weights.q_weight = fill(model.num_heads, gate.config.q_pools, 2 * static_cast<unsigned>(layer) + 1);
    gate.layers.push_back(std::move(weights));
  }
  return gate;
}

void write_model_config(const fs::path& folder) {
  write_file_atomically((folder / "config.json").string(), R"({"model_type": "llama", "head_dim": 16})");
}

// ---- folders ----

TEST(GateFolder, ComesBackAsItWasWritten) {
  const ModelConfig model = small_model();
  for (const std::string type : {"Qavg_Kmaxminavg", "Qmaxminavg_Kmaxminavg", "Qavg_Kavg"}) {
    for (const bool torch_format : {false, true}) {
      SCOPED_TRACE(type + (torch_format ? " pth" : " safetensors"));
      TemporaryFolder folder;
      write_model_config(folder.path);
      GateConfig config = parse_gate_type(type);
      config.gate_hidden_size = 16;
      config.sparsity_method = "nz_ratio";
      config.nz_ratio = 0.25;
      config.threshold = 2e-3;
      config.last_block_dense = false;
      config.base_model = "small";
      Gate gate = random_gate(model, config);
      gate.calibration =
          Calibration{.rule = SelectRule::kTopP, .lengths = {{1024, {{0.1, 0.6}, {0.5, 0.9}}}}};
      const std::string out = (folder.path / "gates").string();
      save_gate(out, gate, model, folder.path.string(), {.torch_format = torch_format});
      const Gate read = load_gate(out, model);
      EXPECT_EQ(read.config.gate_type, type);
      EXPECT_EQ(read.config.q_pools, config.q_pools);
      EXPECT_EQ(read.config.k_pools, config.k_pools);
      EXPECT_EQ(read.config.nz_ratio, 0.25);
      EXPECT_EQ(read.config.threshold, 2e-3);
      EXPECT_EQ(read.config.sparsity_method, "nz_ratio");
      EXPECT_FALSE(read.config.last_block_dense);
      EXPECT_EQ(read.config.base_model, "small");
      ASSERT_TRUE(read.calibration);
      EXPECT_EQ(read.calibration->rule, SelectRule::kTopP);
      EXPECT_EQ(read.calibration->threshold_for(0.5, 5000), 0.9);
      for (std::size_t layer = 0; layer < gate.layers.size(); ++layer) {
        for (const auto which : {&GateLayer::k_weight, &GateLayer::q_weight}) {
          const Buffer<float>& expected = gate.layers[layer].*which;
          const Buffer<float>& actual = read.layers[layer].*which;
          EXPECT_TRUE(std::equal(actual.begin(), actual.end(), expected.begin(), expected.end()));
        }
      }
    }
  }
}

TEST(GateFolder, BfloatWeightsAreRoundedToNearest) {
  const ModelConfig model = small_model();
  TemporaryFolder folder;
  write_model_config(folder.path);
  GateConfig config;
  config.gate_hidden_size = 16;
  const Gate gate = random_gate(model, config);
  const std::string out = (folder.path / "gates").string();
  save_gate(out, gate, model, folder.path.string(), {.dtype = DType::kBF16});
  const Gate read = load_gate(out, model);
  for (std::int64_t i = 0; i < gate.layers[0].k_weight.size(); ++i)
    ASSERT_EQ(read.layers[0].k_weight[i], to_float(to_bfloat16(gate.layers[0].k_weight[i])));
}

TEST(GateFolder, RefusesWhatDoesNotFit) {
  const ModelConfig model = small_model();
  TemporaryFolder folder;
  write_model_config(folder.path);
  GateConfig config;
  config.gate_hidden_size = 16;
  const fs::path out = folder.path / "gates";
  save_gate(out.string(), random_gate(model, config), model, folder.path.string(), {});
  const auto error_with = [&](const std::function<void(Json&)>& change) {
    const std::string path = (out / "config.json").string(), before = read_file(path);
    Json json = Json::parse(before);
    change(json);
    write_file_atomically(path, json.dump());
    const std::string error = test::error_of([&] { load_gate(out.string(), model); });
    write_file_atomically(path, before);
    return error;
  };
  EXPECT_TRUE(test::names(error_with([](Json& json) { json["seerattn_gate_type"] = "Qproj_Kmaxminavg"; }),
                          {"config.json", "seerattn_gate_type", "Qproj_Kmaxminavg"}));
  EXPECT_TRUE(test::names(error_with([](Json& json) { json["seerattn_gate_type"] = "Qavg_Kminmax"; }),
                          {"Qavg_Kminmax"}));
  EXPECT_TRUE(test::names(error_with([](Json& json) { json.erase("seerattn_gate_type"); }),
                          {"seerattn_gate_type", "none"}));
  EXPECT_TRUE(test::names(error_with([](Json& json) { json["seerattn_gate_block_size"] = 128; }),
                          {"block_size", "64", "128"}));
  EXPECT_TRUE(test::names(error_with([](Json& json) { json["seerattn_gate_hidden_size"] = "wide"; }),
                          {"hidden_size", "string"}));
  EXPECT_TRUE(
      test::names(error_with([](Json& json) { json["seerattn_sparsity_method"] = "magic"; }), {"magic"}));
  EXPECT_TRUE(test::names(error_with([](Json& json) { json["num_hidden_layers"] = 7; }),
                          {"num_hidden_layers", "2", "7"}));
  // Another hidden size asks for tensors of another shape (and for a q linear).
  EXPECT_TRUE(test::names(error_with([](Json& json) { json["seerattn_gate_hidden_size"] = 32; }),
                          {"mask_linear_k", "32"}));

  ModelConfig more_heads = model;
  more_heads.num_heads = 8;
  EXPECT_TRUE(
      test::names(test::error_of([&] { load_gate(out.string(), more_heads); }), {"mask_linear_k", "8", "4"}));
  write_file_atomically((out / "calibration.json").string(), R"({"rule": "threshold", "lengths": []})");
  EXPECT_TRUE(
      test::names(test::error_of([&] { load_gate(out.string(), model); }), {"calibration.json", "lengths"}));
  fs::remove(out / "attn_gate_weights.safetensors");
  EXPECT_TRUE(
      test::names(test::error_of([&] { load_gate(out.string(), model); }), {"attn_gate_weights", "neither"}));
}

TEST(GateFolder, ReadsTheReferencesCheckpoint) {
  const fs::path folder = test::golden_path("reference_on_pico");
  if (folder.empty() || !fs::exists(folder / "attn_gate_weights.pth"))
    GTEST_SKIP() << "no reference checkpoint";
  const ModelConfig model = load_model_config(test::embedded_model().string());
  const Gate gate = load_gate(folder.string(), model);
  EXPECT_EQ(gate.config.sparsity_method, "threshold");
  EXPECT_TRUE(gate.config.last_block_dense);
  ASSERT_EQ(gate.layers.size(), 8u);
  for (const GateLayer& layer : gate.layers) {
    EXPECT_EQ(layer.k_weight.size(), 8 * 384 * 128);
    EXPECT_EQ(layer.q_weight.size(), 0);
  }
}

// ---- calibration ----

TEST(Calibration, InterpolatesInLogarithms) {
  const Calibration table{
      .rule = SelectRule::kThreshold,
      .lengths = {{1000, {{0.1, 1e-2}, {0.4, 1e-4}}}, {4000, {{0.1, 1e-3}, {0.4, 1e-5}}}}};
  EXPECT_DOUBLE_EQ(table.threshold_for(0.1, 1000), 1e-2);
  EXPECT_DOUBLE_EQ(table.threshold_for(0.4, 4000), 1e-5);
  EXPECT_NEAR(table.threshold_for(0.2, 1000), 1e-3, 1e-12);             // half way in log density
  EXPECT_NEAR(table.threshold_for(0.1, 2000), std::sqrt(1e-5), 1e-12);  // half way in log length
  EXPECT_DOUBLE_EQ(table.threshold_for(0.01, 10), 1e-2);                // outside: the nearest entry
  EXPECT_DOUBLE_EQ(table.threshold_for(0.9, 100000), 1e-5);
  EXPECT_THROW(Calibration{}.threshold_for(0.1, 1000), Error);

  const Calibration mass{.rule = SelectRule::kTopP, .lengths = {{1000, {{0.1, 0.9}, {0.4, 0.999}}}}};
  EXPECT_NEAR(mass.threshold_for(0.2, 500), 0.99, 1e-12);
}

// ---- golden gates ----

/// One golden prefill case.
struct GoldenCase {
  explicit GoldenCase(const fs::path& file) : store(TensorStore::open_safetensors(file.string())) {
    json = Json::parse(store.metadata().at("case"));
    model.num_layers = 1;
    model.num_heads = json.at("Hq");
    model.num_kv_heads = json.at("Hk");
    model.head_dim = json.at("D");
    model.rope.theta = json.at("rope_theta");
    model.rope.max_position_embeddings = model.max_position_embeddings = 1 << 20;
    tokens = json.at("S");
    blocks = blocks_for(tokens);
    gate.config = parse_gate_type(json.at("gate"));
    gate.config.gate_hidden_size = json.at("gate_hidden");
    gate.config.force_double = json.value("force_double", false);
    GateLayer layer;
    layer.k_weight = buffer("mask_linear_k.weight");
    EXPECT_EQ(store.contains("mask_linear_q.weight"), gate.config.has_q_linear(model.head_dim));
    if (store.contains("mask_linear_q.weight")) layer.q_weight = buffer("mask_linear_q.weight");
    gate.layers.push_back(std::move(layer));
    q = store.get("q").to_floats();
    k = store.get("k").to_floats();
  }

  Buffer<float> buffer(const std::string& name) const {
    const std::vector<float> values = store.get(name).to_floats();
    Buffer<float> copy(static_cast<std::int64_t>(values.size()));
    std::copy(values.begin(), values.end(), copy.begin());
    return copy;
  }

  SelectInput input(std::int64_t first, std::int64_t count) const {
    const std::int64_t q_stride = model.q_size(), k_stride = model.kv_size();
    return {.q_offset = first,
            .num_tokens = count,
            .total_tokens = tokens,
            .q_pre = q.data() + first * q_stride,
            .k_pre = k.data() + first * k_stride,
            .q_stride = q_stride,
            .k_stride = k_stride};
  }

  TensorStore store;
  Json json;
  ModelConfig model;
  Gate gate;
  std::int64_t tokens = 0, blocks = 0;
  std::vector<float> q, k;
};

/// Compares the causal parts of two maps [heads, n, n].
void expect_causal_close(const float* actual, std::span<const float> expected, std::int64_t n,
                         double absolute) {
  for (std::size_t row = 0; row < expected.size() / static_cast<std::size_t>(n); ++row) {
    const std::size_t first = row * static_cast<std::size_t>(n),
                      count = row % static_cast<std::size_t>(n) + 1;
    EXPECT_TRUE(test::all_close({actual + first, count}, expected.subspan(first, count), absolute))
        << "row " << row;
  }
}

TEST(GoldenPrefill, ScoresAndMasks) {
  const auto files = test::golden_files("prefill", ".safetensors");
  if (files.empty()) GTEST_SKIP() << "no golden prefill cases";
  for (const fs::path& file : files) {
    for (const CpuIsa isa : available_cpu_isas()) {
      SCOPED_TRACE(file.filename().string() + " on " + std::string(name_of(isa)));
      const GoldenCase golden(file);
      const Context context(2, isa);
      const std::int64_t n = golden.blocks;
      const int heads = golden.model.num_heads;
      GateScorer scorer(golden.model, golden.gate);
      scorer.begin(golden.tokens);
      const GateScores scores = scorer.score(context, golden.input(0, golden.tokens));
      ASSERT_EQ(scores.stride, n);
      const auto expected = golden.store.get("scores").as<float>();
      // Rotary angles were rounded to float32 in the golden data: 1e-5 of the largest score.
      double largest = 0;
      for (std::int64_t row = 0; row < heads * n; ++row)
        for (std::int64_t j = 0; j <= row % n; ++j)
          largest = std::max(largest,
                             std::abs(static_cast<double>(expected[static_cast<std::size_t>(row * n + j)])));
      expect_causal_close(scores.data, expected, n, 3e-5 * largest);

      std::vector<float> probabilities(scores.data, scores.data + heads * n * n);
      causal_softmax(context, probabilities.data(), heads, n, 0, n);
      expect_causal_close(probabilities.data(), golden.store.get("probs").as<float>(), n, 1e-4);

      int masks = 0;
      for (const auto& [name, tensor] : golden.store.tensors()) {
        if (!name.starts_with("mask_nz") && !name.starts_with("mask_thr")) continue;
        SCOPED_TRACE(name);
        ++masks;
        const std::size_t split = name.rfind("_last");
        SelectParams params{.last_block_dense = name.substr(split) == "_last1", .total_blocks = n};
        if (name.starts_with("mask_nz")) {
          params.rule = SelectRule::kNzRatio;
          params.value = std::stod(name.substr(7, split - 7));
        } else {
          params.rule = SelectRule::kThreshold;
          params.value = golden.json.at("thresholds").at(name.substr(9, split - 9)).at("value");
        }
        BlockMask mask(heads, 0, n);
        select_blocks(context, params.rule == SelectRule::kNzRatio ? scores.data : probabilities.data(), n,
                      params, mask);
        const auto bits = tensor.as<std::uint8_t>();
        for (std::int64_t row = 0; row < heads * n; ++row) {
          const int head = static_cast<int>(row / n);
          const auto* wanted = bits.data() + row * n;
          const bool empty = std::all_of(wanted, wanted + n, [](std::uint8_t bit) { return bit == 0; });
          for (std::int64_t j = 0; j <= row % n; ++j)
            EXPECT_EQ(mask.test(head, row % n, j), empty ? j == row % n : wanted[j] != 0)
                << "head " << head << " row " << row % n << " block " << j;
        }
      }
      EXPECT_GT(masks, 0);
    }
  }
}

TEST(GoldenPrefill, ChunksGiveTheBitsOfOneShot) {
  const auto files = test::golden_files("prefill", ".safetensors");
  if (files.empty()) GTEST_SKIP() << "no golden prefill cases";
  for (const fs::path& file : files) {
    SCOPED_TRACE(file.filename().string());
    const GoldenCase golden(file);
    const Context context(2);
    const std::int64_t n = golden.blocks;
    const int heads = golden.model.num_heads;
    GateScorer scorer(golden.model, golden.gate);
    scorer.begin(golden.tokens);
    const GateScores whole = scorer.score(context, golden.input(0, golden.tokens));
    const std::vector<float> expected(whole.data, whole.data + heads * n * n);
    scorer.begin(golden.tokens);
    for (std::int64_t first = 0; first < golden.tokens; first += 192) {
      const std::int64_t count = std::min<std::int64_t>(192, golden.tokens - first), rows = blocks_for(count);
      const GateScores part = scorer.score(context, golden.input(first, count));
      for (int head = 0; head < heads; ++head)
        for (std::int64_t row = 0; row < rows; ++row)
          EXPECT_TRUE(std::equal(part.data + (head * rows + row) * part.stride,
                                 part.data + (head * rows + row) * part.stride + part.stride,
                                 expected.data() + (head * n + first / kBlockSize + row) * n));
    }
  }
}

}  // namespace
}  // namespace seer
