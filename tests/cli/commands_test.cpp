// The commands as a user runs them, on the embedded model.
#include <fmt/core.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/cpu_isa.h"
#include "cuda/attention.h"
#include "io/tensor_file.h"
#include "program.h"
#include "support/compare.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

#if defined(__SANITIZE_ADDRESS__)
constexpr double kSlower = 10;
#else
constexpr double kSlower = 1;
#endif

class Commands : public ProgramTest {};

json run_json(const std::vector<std::string>& arguments, const ProgramOptions& options = {}) {
  const ProgramResult result = run_seer(arguments, options);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out, nullptr, false);
}

TEST_F(Commands, VersionAndHelp) {
  EXPECT_EQ(run_seer({"--version"}).out, "seer " SEER_VERSION "\n");
  for (const std::vector<std::string>& command : {std::vector<std::string>{},
                                                  {"info"},
                                                  {"tokenize"},
                                                  {"detokenize"},
                                                  {"score"},
                                                  {"generate"},
                                                  {"eval"},
                                                  {"eval", "ppl"},
                                                  {"report"},
                                                  {"distill"},
                                                  {"calibrate"},
                                                  {"bench", "attention"},
                                                  {"bench", "distill"}}) {
    std::vector<std::string> arguments = command;
    arguments.push_back("--help");
    const ProgramResult result = run_seer(arguments);
    EXPECT_EQ(result.exit_code, 0) << (command.empty() ? "" : command.back());
    EXPECT_TRUE(result.err.empty());
    EXPECT_NE(result.out.find("Usage:"), std::string::npos);
  }
}

TEST_F(Commands, InfoOfTheEmbeddedModel) {
  const json info = run_json({"info", "--json", "--threads", "2"});
  EXPECT_EQ(info["model"]["type"], "llama");
  EXPECT_EQ(info["model"]["parameters"], 18880896);
  EXPECT_EQ(info["model"]["head_dim"], 128);
  EXPECT_EQ(info["device"]["isa"], name_of(choose_cpu_isa()));
  EXPECT_EQ(info["device"]["threads"], 2);
  // 32768 tokens x 8 layers x (k and v) x 2 heads of 128 in bfloat16.
  EXPECT_EQ(info["memory"].back()["context"], 32768);
  EXPECT_EQ(info["memory"].back()["kv_cache_bytes"], 32768LL * 8 * 2 * 2 * 128 * 2);
  EXPECT_NE(run_seer({"info"}).out.find("18.9 M parameters"), std::string::npos);
}

TEST_F(Commands, InfoOfManyGigabytesIsQuick) {
  // A 14 GB checkpoint, nearly all of it a hole in the file.
  constexpr std::int64_t layers = 32, hidden = 4096, inner = 11008, vocab = 128256;
  json header = json::object();
  std::int64_t end = 0;
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    std::int64_t bytes = 2;
    for (const std::int64_t size : shape) bytes *= size;
    header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  };
  add("model.embed_tokens.weight", {vocab, hidden});
  add("lm_head.weight", {vocab, hidden});
  add("model.norm.weight", {hidden});
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {hidden});
    add(layer + "post_attention_layernorm.weight", {hidden});
    for (const char* name : {"q", "k", "v", "o"})
      add(layer + "self_attn." + name + "_proj.weight", {hidden, hidden});
    for (const char* name : {"gate", "up"}) add(layer + "mlp." + name + "_proj.weight", {inner, hidden});
    add(layer + "mlp.down_proj.weight", {hidden, inner});
  }
  const std::string image = safetensors_image(header.dump(), 0);
  write("model/model.safetensors", image);
  fs::resize_file(path("model/model.safetensors"), image.size() + static_cast<std::size_t>(end));
  write("model/config.json", json{{"model_type", "llama"},
                                  {"num_hidden_layers", layers},
                                  {"hidden_size", hidden},
                                  {"intermediate_size", inner},
                                  {"num_attention_heads", 32},
                                  {"num_key_value_heads", 32},
                                  {"vocab_size", vocab},
                                  {"max_position_embeddings", 131072}}
                                 .dump());
  double fastest = 1e9;
  for (int i = 0; i < 3; ++i) {
    const ProgramResult result = run_seer({"info", path("model"), "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(json::parse(result.out)["model"]["weight_bytes"], end);
    fastest = std::min(fastest, result.seconds);
  }
  EXPECT_LT(fastest, 1.0 * kSlower);
}

TEST_F(Commands, TokenizeAndBack) {
  const fs::path golden = golden_path("tokenizer/pico.jsonl");
  ASSERT_FALSE(golden.empty());
  std::string texts, expected, decoded;
  std::istringstream lines(read_whole(golden));
  for (std::string line; std::getline(lines, line);) {
    const json record = json::parse(line);
    if (record["add_special_tokens"]) continue;
    texts += record["text"].dump() + "\n";
    expected += record["ids"].dump() + "\n";
    decoded += record["decoded"].dump() + "\n";
  }
  const ProgramResult encoded = run_seer({"tokenize", "--json", "--no-special-tokens"}, {.input = texts});
  EXPECT_EQ(encoded.exit_code, 0) << encoded.err;
  EXPECT_EQ(encoded.out, expected);
  const ProgramResult back = run_seer({"detokenize", "--json"}, {.input = encoded.out});
  EXPECT_EQ(back.exit_code, 0) << back.err;
  EXPECT_EQ(back.out, decoded);

  const ProgramResult plain = run_seer({"tokenize"}, {.input = "import os\n"});
  EXPECT_EQ(plain.out.substr(0, 2), "0 ");
  EXPECT_EQ(run_seer({"detokenize"}, {.input = plain.out}).out, "import os\n");
}

TEST_F(Commands, ScoreAgreesWithItsLogits) {
  const std::string text = write("text.py", "import os\n\ndef main():\n    print(os.getcwd())\n");
  const std::string logits_file = path("logits.safetensors");
  const json score =
      run_json({"score", "--text-file", text, "--logits", logits_file, "--json", "--dtype", "float32"});
  const std::size_t tokens = score["ids"].size();
  ASSERT_GT(tokens, 8u);
  EXPECT_EQ(score["ids"][0], 0);
  EXPECT_EQ(score["logprobs"].size(), tokens - 1);
  EXPECT_EQ(score["density"], 1.0);
  const TensorStore store = TensorStore::open_safetensors(logits_file);
  const std::vector<std::int64_t> shape{static_cast<std::int64_t>(tokens), 4096};
  const std::vector<float> logits = store.get("logits", shape).to_floats();
  double sum = 0;
  for (std::size_t i = 0; i + 1 < tokens; ++i) {
    double total = 0;
    for (std::size_t v = 0; v < 4096; ++v) total += std::exp(static_cast<double>(logits[i * 4096 + v]));
    const double expected = logits[i * 4096 + score["ids"][i + 1].get<std::size_t>()] - std::log(total);
    EXPECT_NEAR(score["logprobs"][i], expected, 1e-4);
    sum -= expected;
  }
  EXPECT_NEAR(score["nll"], sum / static_cast<double>(tokens - 1), 1e-5);
  EXPECT_NEAR(score["ppl"], std::exp(score["nll"].get<double>()), 1e-6);

  const ProgramResult table = run_seer({"score", "--text-file", text, "--dtype", "float32"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find(fmt::format("perplexity {:.4f}", score["ppl"].get<double>())), std::string::npos)
      << table.out;
}

TEST_F(Commands, ScoreReadsIdsOfBothKinds) {
  const json from_text = run_json({"score", "--ids", write("ids.txt", "0, 5 6\n7"), "--json"});
  std::string data;
  for (const int id : {0, 5, 6, 7}) data += std::string{static_cast<char>(id), 0, 0, 0};
  const std::string header = R"({"input_ids":{"dtype":"I32","shape":[4],"data_offsets":[0,16]}})";
  const json from_tensor =
      run_json({"score", "--ids", write("ids.safetensors", safetensors_image(header, 0) + data), "--json"});
  EXPECT_EQ(from_text["ids"], json({0, 5, 6, 7}));
  EXPECT_EQ(from_text["logprobs"], from_tensor["logprobs"]);
}

TEST_F(Commands, SparseScoreMeasuresItsDensity) {
  std::string ids = "0";
  for (int i = 0; i < 1023; ++i) ids += " " + std::to_string(100 + i * 7 % 3000);
  const std::string file = write("ids.txt", ids);
  const json local = run_json({"score", "--ids", file, "--selector", "local", "--nz-ratio", "0.5", "--json"});
  EXPECT_LT(local["density"], 0.6);
  EXPECT_GT(local["density"], 0.3);
  const json full = run_json({"score", "--ids", file, "--selector", "local", "--nz-ratio", "1", "--json"});
  const json dense = run_json({"score", "--ids", file, "--json"});
  EXPECT_EQ(full["logprobs"], dense["logprobs"]);
}

TEST_F(Commands, GenerateStreamsAndBatches) {
  const std::vector<std::string> common{"--max-new-tokens", "12", "--ignore-eos"};
  const auto generate = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "generate");
    arguments.insert(arguments.end(), common.begin(), common.end());
    return run_seer(arguments);
  };
  const ProgramResult one = generate({"--prompt", "import numpy as"});
  EXPECT_EQ(one.exit_code, 0) << one.err;
  EXPECT_EQ(one.out.back(), '\n');
  EXPECT_NE(one.err.find("density 1.0000"), std::string::npos) << one.err;
  EXPECT_NE(one.err.find("tokens/s"), std::string::npos) << one.err;

  const ProgramResult two = generate({"--prompt", "import numpy as", "--prompt", "def main(", "--json"});
  EXPECT_EQ(two.exit_code, 0) << two.err;
  std::istringstream lines(two.out);
  std::vector<json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(json::parse(line));
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0]["text"].get<std::string>() + "\n", one.out);
  EXPECT_EQ(answers[1]["tokens"].size(), 12u);
  EXPECT_EQ(answers[1]["finish_reason"], "length");

  const std::string file =
      write("prompts.jsonl", "{\"text\": \"import numpy as\"}\n{\"input_ids\": [0, 5, 6]}\n");
  const ProgramResult from_file = generate({"--prompt-file", file});
  EXPECT_EQ(from_file.exit_code, 0) << from_file.err;
  EXPECT_NE(from_file.out.find(one.out), std::string::npos);
}

TEST_F(Commands, FullStandardOutputIsAFailure) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const int code = std::system(("exec " SEER_PROGRAM " info > /dev/full 2> " + path("err")).c_str());
  EXPECT_EQ(WEXITSTATUS(code), 1);
  EXPECT_NE(read_whole(path("err")).find("standard output"), std::string::npos);
}

TEST_F(Commands, EmbeddedModelsMayLieElsewhere) {
  copy_embedded_model("models/pico-llama-19m");
  setenv("SEER_MODELS", path("models").c_str(), 1);
  const json info = run_json({"info", "--json"});
  unsetenv("SEER_MODELS");
  EXPECT_EQ(info["model"]["folder"], path("models/pico-llama-19m"));
  EXPECT_TRUE(info["gate"].is_null());
}

TEST_F(Commands, BenchAttentionOnTheCpu) {
  const ProgramResult result =
      run_seer({"bench", "attention", "--lengths", "256", "--densities", "0.5", "--repeats", "1", "--check",
                "--threads", "2", "--json", path("bench.json")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(read_whole(path("bench.json")));
  ASSERT_EQ(document["records"].size(), 2u);
  EXPECT_EQ(document["records"][0]["density"], 1.0);
  EXPECT_LT(document["records"][1]["largest_difference"], 1e-4);
}

TEST_F(Commands, BenchAttentionOnTheGpu) {
  const std::vector<std::string> arguments = {
      "bench", "attention", "--device",        "cuda", "--lengths", "256",    "--densities",
      "0.5",   "--check",   "--repeats",       "2",    "--masks",   "random", "--same-bits",
      "2",     "--json",    path("bench.json")};
  std::string reason;
  if (!cuda::available(&reason)) {
    EXPECT_TRUE(is_user_error(run_seer(arguments), {"--device cuda", reason}));
    EXPECT_FALSE(fs::exists(path("bench.json")));
    return;
  }
  const ProgramResult result = run_seer(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const json records = json::parse(read_whole(path("bench.json")));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0]["mask"], "dense");
  EXPECT_EQ(records[1]["mask"], "random");
  for (const json& record : records) {
    EXPECT_GT(record["ms"], 0);
    EXPECT_GT(record["share_of_roofline"], 0);
    EXPECT_LE(record["max_error"], 2 * record["rounding_error"].get<double>());
    EXPECT_EQ(record["same_bits"], true);
  }
}

TEST_F(Commands, BenchAttentionRefusesTheOtherDevicesFlags) {
  EXPECT_TRUE(is_user_error(run_seer({"bench", "attention", "--splits", "2"}), {"--splits", "--device cpu"}));
  EXPECT_TRUE(is_user_error(run_seer({"bench", "attention", "--device", "cuda", "--clock", "cpu"}),
                            {"--clock", "--device cuda"}));
  EXPECT_TRUE(is_user_error(run_seer({"bench", "attention", "--device", "tpu"}), {"--device", "tpu"}));
}

TEST_F(Commands, BenchDistill) {
  const std::vector<std::string> tiny = {"bench",      "distill", "--layers",  "2",   "--heads",    "4",
                                         "--kv-heads", "2",       "--lengths", "700", "--head-dim", "32",
                                         "--batch",    "2",       "--steps",   "4"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = tiny;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_seer(arguments);
  };
  const ProgramResult result = with({"--threads", "2", "--force-double", "--json", path("bench.json")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const json records = json::parse(read_whole(path("bench.json")));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0]["steps"], 4);
  EXPECT_GT(records[0]["ms"], 0);
  EXPECT_TRUE(is_user_error(with({"--check"}), {"--check", "--device cuda"}));
  EXPECT_TRUE(is_user_error(with({"--lengths", "0"}), {"--lengths", "0"}));
  EXPECT_TRUE(is_user_error(run_seer({"bench", "distill", "--kv-heads", "3"}), {"--heads", "--kv-heads"}));
  EXPECT_TRUE(is_user_error(with({"--device", "tpu"}), {"--device", "tpu"}));
  std::string reason;
  if (cuda::available(&reason)) {
    const ProgramResult on_gpu = with({"--device", "cuda", "--check", "--json", path("bench.json")});
    EXPECT_EQ(on_gpu.exit_code, 0) << on_gpu.err;
    EXPECT_LT(json::parse(read_whole(path("bench.json")))[0]["loss_difference"], 1e-4);
  } else {
    EXPECT_TRUE(is_user_error(with({"--device", "cuda"}), {"--device cuda", reason}));
  }
}

}  // namespace
}  // namespace seer::test
