#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tensor_file.h"
#include "support/errors.h"
#include "support/golden.h"

namespace seer {
namespace {

using Json = nlohmann::json;

Json llama() {
  return {{"model_type", "llama"},       {"num_hidden_layers", 2},   {"hidden_size", 256},
          {"intermediate_size", 512},    {"num_attention_heads", 8}, {"num_key_value_heads", 2},
          {"vocab_size", 1000},          {"rms_norm_eps", 1e-5},     {"max_position_embeddings", 4096},
          {"tie_word_embeddings", true}, {"hidden_act", "silu"},     {"eos_token_id", {7, 8}}};
}

ModelConfig parse(const Json& json) { return parse_model_config(json.dump(), "config.json"); }

std::string message_of(const Json& json) {
  return test::error_of([&] { parse(json); });
}

TEST(ModelConfig, ReadsFieldsAndDefaults) {
  const ModelConfig config = parse(llama());
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int32_t>{7, 8}));
}

TEST(ModelConfig, FamiliesDifferInBiasesAndNorms) {
  Json json = llama();
  json["model_type"] = "qwen2";
  EXPECT_TRUE(parse(json).attention_bias);
  EXPECT_FALSE(parse(json).attention_out_bias);
  json["model_type"] = "qwen3";
  EXPECT_TRUE(parse(json).qk_norm);
  EXPECT_FALSE(parse(json).attention_bias);
  EXPECT_EQ(parse(json).head_dim, 128);
  json["model_type"] = "llama";
  json["attention_bias"] = true;
  EXPECT_TRUE(parse(json).attention_out_bias);
  json["model_type"] = "mistral";
  json["sliding_window"] = nullptr;
  EXPECT_EQ(parse(json).model_type, "mistral");
}

TEST(ModelConfig, BothRopeLayoutsAgree) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 1024}};
  Json top = llama();
  top["rope_theta"] = 500000.0;
  top["rope_scaling"] = scaling;
  Json nested = llama();
  nested["rope_parameters"] = scaling;
  nested["rope_parameters"]["rope_theta"] = 500000.0;
  const RopeTable a(parse(top).rope, 32, 4096), b(parse(nested).rope, 32, 4096);
  std::vector<float> cos_a(16), sin_a(16), cos_b(16), sin_b(16);
  a.fill(1000, 1, 1, cos_a.data(), sin_a.data());
  b.fill(1000, 1, 1, cos_b.data(), sin_b.data());
  EXPECT_EQ(cos_a, cos_b);
  EXPECT_EQ(sin_a, sin_b);
}

TEST(ModelConfig, RefusesNamingFileAndField) {
  const auto refused = [](const char* field, const Json& value, const char* expected) {
    Json json = llama();
    json[field] = value;
    const std::string message = message_of(json);
    EXPECT_NE(message.find("config.json"), std::string::npos) << message;
    EXPECT_NE(message.find(field), std::string::npos) << message;
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  };
  refused("model_type", "gpt2", "qwen3");
  refused("sliding_window", 4096, "sliding-window");
  refused("use_sliding_window", true, "sliding-window");
  refused("layer_types", Json::array({"full_attention", "sliding_attention"}), "sliding_attention");
  refused("num_local_experts", 8, "mixture-of-experts");
  refused("quantization_config", Json::object(), "quantised");
  refused("hidden_act", "gelu", "silu");
  refused("hidden_size", "256", "integer");
  refused("hidden_size", -1, "-1");
  refused("hidden_size", 1e30, "integer");
  refused("num_hidden_layers", std::uint64_t{1} << 63, "10000");
  refused("num_key_value_heads", 3, "multiple");
  refused("head_dim", 24, "multiple of 16");
  refused("rms_norm_eps", "small", "positive number");
  refused("rope_scaling", {{"rope_type", "longrope"}, {"factor", 2.0}}, "longrope");
  refused("rope_scaling", {{"rope_type", "linear"}}, "factor");
  refused("partial_rotary_factor", 0.5, "1.0");
  refused("torch_dtype", "int8", "bfloat16");
  Json without = llama();
  without.erase("vocab_size");
  EXPECT_NE(message_of(without).find("vocab_size"), std::string::npos);
}

TEST(ModelConfig, SurvivesDeepNestingAndNonsense) {
  const std::string deep = "{\"model_type\": " + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_THROW(parse_model_config(deep, "config.json"), Error);
  for (const char* text : {"", "[]", "{", "null", "{\"model_type\": 3}", "\xff\xfe"})
    EXPECT_THROW(parse_model_config(text, "config.json"), Error) << text;
}

// Yarn's and dynamic NTK's formulas evaluated by hand at chosen pairs.
TEST(RopeTable, ScalingsByHand) {
  RopeConfig rope;
  rope.theta = 10000;
  rope.max_position_embeddings = rope.original_max_position_embeddings = 1024;
  const auto angle = [&](const RopeConfig& config, int pair, std::int64_t length) {
    std::vector<float> cos(32), sin(32);
    RopeTable(config, 64, length).fill(1, 1, 1, cos.data(), sin.data());
    return std::atan2(sin[static_cast<std::size_t>(pair)], cos[static_cast<std::size_t>(pair)]);
  };
  EXPECT_NEAR(angle(rope, 16, 1024), 0.01, 1e-8);
  rope.type = RopeType::kLinear;
  rope.factor = 4;
  EXPECT_NEAR(angle(rope, 16, 1024), 0.0025, 1e-8);
  rope.type = RopeType::kDynamic;
  EXPECT_NEAR(angle(rope, 16, 1024), 0.01, 1e-8);
  // theta * (4 * 2048 / 1024 - 3) ^ (64 / 62)
  EXPECT_NEAR(angle(rope, 16, 2048), std::pow(10000 * std::pow(5.0, 64.0 / 62.0), -0.5), 1e-8);
  rope.type = RopeType::kYarn;
  EXPECT_NEAR(angle(rope, 0, 1024), 1.0, 1e-6);                                 // fastest pair kept
  EXPECT_NEAR(angle(rope, 31, 1024), std::pow(10000, -62.0 / 64.0) / 4, 1e-8);  // slowest interpolated
  std::vector<float> cos(32), sin(32);
  RopeTable(rope, 64, 1024).fill(0, 1, 1, cos.data(), sin.data());
  EXPECT_NEAR(cos[0], 0.1 * std::log(4.0) + 1, 1e-6);
}

TEST(ModelConfig, BothLayoutsOfEveryGoldenModelAgree) {
  const auto files = test::golden_files("tiny-*", "config.transformers5.json");
  if (files.empty()) GTEST_SKIP() << "no golden tiny models";
  for (const auto& file : files) {
    const ModelConfig a = parse_model_config(read_file(file), file);
    const ModelConfig b = parse_model_config(read_file(file.parent_path() / "config.json"), "config.json");
    EXPECT_EQ(a.head_dim, b.head_dim) << file;
    EXPECT_EQ(a.rope.theta, b.rope.theta) << file;
    EXPECT_EQ(a.rope.type, b.rope.type) << file;
    EXPECT_EQ(a.rope.factor, b.rope.factor) << file;
    EXPECT_EQ(a.rope.original_max_position_embeddings, b.rope.original_max_position_embeddings) << file;
    EXPECT_EQ(a.torch_dtype, b.torch_dtype) << file;
    EXPECT_EQ(a.attention_bias, b.attention_bias) << file;
    EXPECT_EQ(a.tie_word_embeddings, b.tie_word_embeddings) << file;
  }
}

}  // namespace
}  // namespace seer
