#include "model/decode_gate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tensor_file.h"
#include "model/gate.h"
#include "support/compare.h"
#include "support/errors.h"

namespace seer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A decode gate's folder with random weights, removed when the test ends.
class GateFolder {
 public:
  GateFolder() {
    fs::create_directories(path_);
    config = {{"seerattn_q_head_pooling_type", "Qproj"},
              {"seerattn_k_seq_pooling_type", "Kmaxminavg"},
              {"seerattn_gate_block_size", 64},
              {"seerattn_gate_hidden_size", 8},
              {"seerattn_use_qk_norm", true},
              {"num_attention_heads", 6}};
    model.num_layers = 2;
    model.num_heads = 6;
    model.num_kv_heads = 2;
    model.head_dim = 16;
  }
  ~GateFolder() { fs::remove_all(path_); }

  void add(int layer, const std::string& part, std::vector<std::int64_t> shape) {
    std::int64_t size = 1;
    for (const std::int64_t extent : shape) size *= extent;
    values_.emplace_back(static_cast<std::size_t>(size));
    test::fill_normal(values_.back(), values_.size());
    tensors_.push_back({.name = "model.layers." + std::to_string(layer) + ".self_attn.attn_gate.attngate_" +
                                part + ".weight",
                        .shape = std::move(shape)});
  }
  void add_layers(bool projection = true, bool norms = true) {
    for (int layer = 0; layer < 2; ++layer) {
      add(layer, "linear_q",
          projection ? std::vector<std::int64_t>{2, 3, 16, 8} : std::vector<std::int64_t>{2, 16, 8});
      add(layer, "linear_k", {2, 48, 8});
      if (!norms) continue;
      add(layer, "qnorm", {8});
      add(layer, "knorm", {8});
    }
  }
  std::string write(bool torch_format = false) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) tensors_[i].data = values_[i].data();
    write_file_atomically((path_ / "config.json").string(), config.dump());
    if (torch_format)
      write_torch((path_ / "attn_gate_weights.pth").string(), tensors_);
    else
      write_safetensors((path_ / "attn_gate_weights.safetensors").string(), tensors_);
    return path_.string();
  }
  const std::vector<float>& values(std::size_t tensor) const { return values_[tensor]; }

  Json config;
  ModelConfig model;

 private:
  fs::path path_ = fs::temp_directory_path() / ("seer_decode_gate_test_" + std::to_string(getpid()));
  std::vector<std::vector<float>> values_;
  std::vector<TensorToWrite> tensors_;
};

TEST(DecodeGateFolder, IsRead) {
  for (const bool torch_format : {false, true}) {
    GateFolder folder;
    folder.config["seerattn_start_layer"] = 1;
    folder.add_layers();
    const std::string path = folder.write(torch_format);
    EXPECT_TRUE(is_decode_gate_folder(path));
    const DecodeGate gate = load_decode_gate(path, folder.model);
    EXPECT_EQ(gate.gate_hidden_size, 8);
    EXPECT_EQ(gate.start_layer, 1);
    EXPECT_EQ(gate.k_pools, kPoolMax | kPoolMin | kPoolAvg);
    ASSERT_EQ(gate.layers.size(), 2u);
    std::size_t tensor = 0;
    for (const DecodeGateLayer& layer : gate.layers)
      for (const auto part : {&DecodeGateLayer::q_weight, &DecodeGateLayer::k_weight,
                              &DecodeGateLayer::q_norm, &DecodeGateLayer::k_norm}) {
        const std::vector<float>& expected = folder.values(tensor++);
        EXPECT_TRUE(std::equal((layer.*part).begin(), (layer.*part).end(), expected.begin(), expected.end()));
      }
    const DecodeGateParams params = gate.params(folder.model, 1);
    EXPECT_EQ(params.num_heads, 6);
    EXPECT_EQ(params.dim, 8);
    EXPECT_EQ(params.k_norm, gate.layers[1].k_norm.data());
  }
}

TEST(DecodeGateFolder, AnAveragesMatrixIsSpreadOverTheGroup) {
  GateFolder folder;
  folder.config["seerattn_q_head_pooling_type"] = "Qavgproj";
  folder.config.erase("seerattn_use_qk_norm");
  folder.add_layers(/*projection=*/false, /*norms=*/false);
  const DecodeGate gate = load_decode_gate(folder.write(), folder.model);
  EXPECT_EQ(gate.params(folder.model, 0).q_norm, nullptr);
  // The mean of a group's queries through one matrix, against each query through its own.
  std::vector<float> q(6 * 16), out(2 * 8), cos(4, 1.0f), sin(4, 0.0f), expected(2 * 8, 0.0f);
  test::fill_normal(q, 9);
  decode_gate_query(Context(1), gate.params(folder.model, 0), q.data(), cos.data(), sin.data(), out.data());
  for (std::size_t g = 0; g < 2; ++g)
    for (std::size_t d = 0; d < 16; ++d)
      for (std::size_t c = 0; c < 8; ++c)
        expected[g * 8 + c] += (q[(3 * g) * 16 + d] + q[(3 * g + 1) * 16 + d] + q[(3 * g + 2) * 16 + d]) / 3 *
                               folder.values(0)[(g * 16 + d) * 8 + c];
  EXPECT_TRUE(test::all_close(out, expected, 1e-5));
}

TEST(DecodeGateFolder, RefusesWhatDoesNotFit) {
  const auto error_with = [](const std::function<void(GateFolder&)>& change, bool norms = true) {
    GateFolder folder;
    folder.add_layers(true, norms);
    change(folder);
    const std::string path = folder.write();
    return test::error_of([&] { load_decode_gate(path, folder.model); });
  };
  const auto with_key = [&](const char* key, const Json& value) {
    return error_with([&](GateFolder& folder) { folder.config[key] = value; });
  };
  EXPECT_TRUE(test::names(with_key("seerattn_q_head_pooling_type", "Qavg"),
                          {"config.json", "seerattn_q_head_pooling_type", "Qproj", "\"Qavg\""}));
  EXPECT_TRUE(test::names(with_key("seerattn_k_seq_pooling_type", "Kminmax"),
                          {"seerattn_k_seq_pooling_type", "Kminmax"}));
  EXPECT_TRUE(test::names(with_key("seerattn_use_rope", false), {"seerattn_use_rope", "true"}));
  EXPECT_TRUE(
      test::names(with_key("seerattn_use_qk_norm", false), {"seerattn_use_qk_norm", "true", "false"}));
  EXPECT_TRUE(
      test::names(error_with([](GateFolder&) {}, /*norms=*/false), {"seerattn_use_qk_norm", "false"}));
  EXPECT_TRUE(
      test::names(with_key("seerattn_gate_block_size", 32), {"seerattn_gate_block_size", "64", "32"}));
  EXPECT_TRUE(test::names(
      with_key("seerattn_gate_hidden_size", 16),
      {"attn_gate_weights.safetensors", "layers.0", "attngate_linear_q", "[2, 3, 16, 16]", "[2, 3, 16, 8]"}));
  EXPECT_TRUE(test::names(with_key("num_attention_heads", 8), {"num_attention_heads", "6", "8"}));
  EXPECT_TRUE(test::names(error_with([](GateFolder& folder) { folder.model.num_layers = 3; }),
                          {"attngate_linear_q", "layers.2", "missing"}));
  EXPECT_TRUE(test::names(error_with([](GateFolder& folder) {
                            folder.config.erase("seerattn_q_head_pooling_type");
                            folder.config["seerattn_gate_type"] = "Qavg_Kmaxminavg";
                          }),
                          {"decode gate", "prefill gate"}));

  GateFolder folder;
  folder.add_layers();
  const std::string path = folder.write();
  EXPECT_TRUE(test::names(test::error_of([&] { load_gate(path, folder.model); }),
                          {"prefill gate", "decode gate", "--decode-gate"}));
}

}  // namespace
}  // namespace seer
