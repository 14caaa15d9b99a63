// Bad input: one line that names the file, field or flag; exit code 2; nothing half-written left behind.
#include <nlohmann/json.hpp>

#include "program.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using namespace std::string_literals;
using nlohmann::json;

class BadInput : public ProgramTest {
 protected:
  /// A model folder with the configuration and weights of a tiny Qwen2, each changed by the caller.
  std::string model(const std::function<void(json&)>& change_config, const std::string& weights = {}) const {
    const fs::path source = golden_path("tiny-qwen2");
    json config = json::parse(read_whole(source / "config.json"));
    if (change_config) change_config(config);
    write("model/config.json", config.dump());
    write("model/model.safetensors", weights.empty() ? read_whole(source / "model.safetensors") : weights);
    return path("model");
  }

  /// The tiny model's weights with another header.
  std::string weights_with_header(const std::function<void(json&)>& change) const {
    const std::string whole = read_whole(golden_path("tiny-qwen2/model.safetensors"));
    std::uint64_t size = 0;
    for (int i = 7; i >= 0; --i)
      size = size << 8 | static_cast<unsigned char>(whole[static_cast<std::size_t>(i)]);
    json header = json::parse(whole.substr(8, size));
    change(header);
    return safetensors_image(header.dump(), 0) + whole.substr(8 + size);
  }

  /// A gate folder of the embedded model's geometry with this archive for weights.
  std::string gate(const std::string& archive) const {
    json config = json::parse(read_whole(embedded_model() / "config.json"));
    config["seerattn_gate_type"] = "Qavg_Kmaxminavg";
    config["seerattn_gate_block_size"] = 64;
    config["seerattn_gate_hidden_size"] = 128;
    config["seerattn_gate_force_double"] = false;
    config["seerattn_sparsity_method"] = "threshold";
    config["seerattn_threshold"] = 0.01;
    write("gate/config.json", config.dump());
    write("gate/attn_gate_weights.pth", archive);
    return path("gate");
  }

  ProgramResult info(const std::string& folder) const { return run_seer({"info", folder}); }
};

constexpr const char* kQ = "model.layers.0.self_attn.q_proj.weight";
constexpr const char* kK = "model.layers.0.self_attn.k_proj.weight";

TEST_F(BadInput, TheUntouchedModelIsFine) { EXPECT_EQ(info(model({})).exit_code, 0); }

TEST_F(BadInput, SafetensorsCutShort) {
  const std::string whole = read_whole(golden_path("tiny-qwen2/model.safetensors"));
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{100}, whole.size() - 1}) {
    write("model/x", "");
    model({});
    write("model/model.safetensors", whole.substr(0, size));
    EXPECT_TRUE(is_user_error(info(path("model")), {"model.safetensors"})) << size;
  }
}

TEST_F(BadInput, SafetensorsHeaderTooLong) {
  std::string image = safetensors_image("{}", 16);
  image[6] = '\x7f';
  EXPECT_TRUE(is_user_error(info(model({}, image)), {"model.safetensors", "header"}));
}

TEST_F(BadInput, SafetensorsHeaderNoJson) {
  EXPECT_TRUE(is_user_error(info(model({}, safetensors_image("{\"a\":", 16))), {"model.safetensors"}));
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  EXPECT_TRUE(is_user_error(info(model({}, safetensors_image(deep, 16))), {"model.safetensors"}));
}

TEST_F(BadInput, TensorOffsetsOutOfRange) {
  for (const json& offsets : {json{0, std::int64_t{1} << 50}, json{-4, 8}, json{64, 0}, json{0, 3}}) {
    const std::string weights =
        weights_with_header([&](json& header) { header[kQ]["data_offsets"] = offsets; });
    EXPECT_TRUE(is_user_error(info(model({}, weights)), {"model.safetensors", kQ})) << offsets;
  }
}

TEST_F(BadInput, TensorsOverlap) {
  // The last tensor of the data is moved back by two bytes, so that no hole is found before the overlap.
  const std::string weights = weights_with_header([](json& header) {
    json* last = &header[kQ];
    for (auto& [name, entry] : header.items())
      if (name != "__metadata__" && entry["data_offsets"][0] > (*last)["data_offsets"][0]) last = &entry;
    for (json& offset : (*last)["data_offsets"]) offset = offset.get<std::int64_t>() - 2;
  });
  EXPECT_TRUE(is_user_error(info(model({}, weights)), {"model.safetensors", "overlap"}));
}

TEST_F(BadInput, TensorOfAnotherShape) {
  const std::string weights = weights_with_header([](json& header) {
    const json shape = header[kQ]["shape"];
    header[kQ]["shape"] = {shape[0].get<int>() / 2, shape[1].get<int>() * 2};
  });
  EXPECT_TRUE(is_user_error(info(model({}, weights)), {"model.safetensors", kQ}));
}

TEST_F(BadInput, TensorOfAnotherDtype) {
  const std::string weights = weights_with_header([](json& header) { header[kQ]["dtype"] = "I16"; });
  EXPECT_TRUE(is_user_error(info(model({}, weights)), {"model.safetensors", kQ, "I16"}));
  const std::string unknown = weights_with_header([](json& header) { header[kQ]["dtype"] = "Q7"; });
  EXPECT_TRUE(is_user_error(info(model({}, unknown)), {"model.safetensors", "Q7"}));
}

TEST_F(BadInput, TensorMissing) {
  const std::string weights = weights_with_header([](json& header) {
    header["another.weight"] = header[kQ];
    header.erase(kQ);
  });
  EXPECT_TRUE(is_user_error(info(model({}, weights)), {kQ, "missing"}));
}

TEST_F(BadInput, ShardMissing) {
  model({});
  fs::rename(path("model/model.safetensors"), path("model/model-00001-of-00002.safetensors"));
  write("model/model.safetensors.index.json",
        json{{"weight_map",
              {{kQ, "model-00001-of-00002.safetensors"}, {kK, "model-00002-of-00002.safetensors"}}}}
            .dump());
  EXPECT_TRUE(is_user_error(info(path("model")), {"model-00002-of-00002.safetensors"}));
}

TEST_F(BadInput, WeightsMissing) {
  model({});
  fs::remove(path("model/model.safetensors"));
  EXPECT_TRUE(is_user_error(info(path("model")), {"model.safetensors"}));
}

TEST_F(BadInput, ModelTypeUnknown) {
  EXPECT_TRUE(is_user_error(info(model([](json& config) { config["model_type"] = "mamba"; })),
                            {"config.json", "model_type", "mamba"}));
}

TEST_F(BadInput, SlidingWindow) {
  EXPECT_TRUE(is_user_error(info(model([](json& config) {
                              config["use_sliding_window"] = true;
                              config["sliding_window"] = 4096;
                            })),
                            {"config.json", "sliding"}));
}

TEST_F(BadInput, ConfigBroken) {
  EXPECT_TRUE(is_user_error(info(model([](json& config) { config["num_hidden_layers"] = "two"; })),
                            {"config.json", "num_hidden_layers"}));
  model({});
  write("model/config.json", "{\"model_type\": ");
  EXPECT_TRUE(is_user_error(info(path("model")), {"config.json"}));
}

TEST_F(BadInput, FolderMissing) {
  EXPECT_TRUE(is_user_error(info(path("nothing")), {"MODEL", path("nothing")}));
  EXPECT_TRUE(is_user_error(run_seer({"info", "--gate", path("nothing")}), {"--gate", path("nothing")}));
}

TEST_F(BadInput, GateOfAnotherGeometry) {
  const fs::path reference = golden_path("reference_on_pico");
  if (reference.empty()) GTEST_SKIP() << "no golden reference_on_pico";
  EXPECT_TRUE(is_user_error(run_seer({"info", model({}), "--gate", reference.string()}), {"config.json"}));
}

TEST_F(BadInput, PicklesThatRunCode) {
  const std::vector<std::pair<std::string, std::string>> calls{
      {"os.system",
       "\x80\x02"
       "cos\nsystem\nX\x07\x00\x00\x00"
       "touch x\x85R."s},
      {"posix.system",
       "\x80\x02"
       "cposix\nsystem\nX\x02\x00\x00\x00"
       "ls\x85R."s},
      {"builtins.eval",
       "\x80\x02"
       "cbuiltins\neval\nX\x01\x00\x00\x00"
       "1\x85R."s},
      {"subprocess.Popen",
       "\x80\x02"
       "csubprocess\nPopen\n]X\x02\x00\x00\x00"
       "lsa\x85R."s},
  };
  for (const auto& [name, pickle] : calls) {
    EXPECT_TRUE(
        is_user_error(run_seer({"info", "--gate", gate(torch_archive(pickle))}), {"attn_gate_weights.pth"}))
        << name;
  }
}

TEST_F(BadInput, PicklesThatExhaust) {
  const std::string proto = "\x80\x02";
  std::string nested = proto;
  for (int i = 0; i < 300000; ++i) nested += ']';
  for (int i = 0; i + 1 < 300000; ++i) nested += 'a';
  std::string dictionaries = proto;
  for (int i = 0; i < 200000; ++i) dictionaries += "}K\x01";
  const std::vector<std::string> pickles{
      nested + '.',
      dictionaries + '.',
      proto + std::string("X\xff\xff\xff\xff", 5),
      proto + std::string("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", 9),
      proto + std::string("r\xff\xff\xff\xff.", 6),
      proto,
      std::string(),
  };
  for (std::size_t i = 0; i < pickles.size(); ++i) {
    const ProgramResult result = run_seer({"info", "--gate", gate(torch_archive(pickles[i]))});
    EXPECT_TRUE(is_user_error(result, {"attn_gate_weights.pth"})) << i;
  }
}

TEST_F(BadInput, ArchiveBroken) {
  EXPECT_TRUE(
      is_user_error(run_seer({"info", "--gate", gate("not a zip archive")}), {"attn_gate_weights.pth"}));
  const std::string whole = torch_archive("\x80\x02}.");
  EXPECT_TRUE(is_user_error(run_seer({"info", "--gate", gate(whole.substr(0, whole.size() - 10))}),
                            {"attn_gate_weights.pth"}));
}

TEST_F(BadInput, TokenizerBroken) {
  const std::string folder = copy_embedded_model("pico");
  const std::string good = read_whole(embedded_model() / "tokenizer.json");
  const std::string deep = std::string(200000, '[');
  json other = json::parse(good);
  other["model"]["type"] = "Unigram";
  for (const std::string& bad :
       {good.substr(0, good.size() / 2), std::string("{}"), std::string("[]"), deep, other.dump()}) {
    write("pico/tokenizer.json", bad);
    EXPECT_TRUE(is_user_error(run_seer({"tokenize", folder}, {.input = "x"}), {"tokenizer.json"}))
        << bad.substr(0, 60);
  }
  fs::remove(path("pico/tokenizer.json"));
  EXPECT_TRUE(is_user_error(run_seer({"tokenize", folder}, {.input = "x"}), {"tokenizer.json"}));
}

TEST_F(BadInput, TextIsNotUtf8) {
  const std::string file = write("bad.txt", "good \xff bad");
  EXPECT_TRUE(is_user_error(run_seer({"score", "--text-file", file}), {"bad.txt", "UTF-8", "5"}));
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt-file", file}), {"bad.txt", "UTF-8", "5"}));
  EXPECT_TRUE(is_user_error(run_seer({"tokenize", "--text-file", file}), {"bad.txt", "UTF-8", "5"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "ppl", "--data", file, "--selectors", "dense"}), {"bad.txt", "UTF-8"}));
}

TEST_F(BadInput, TextIsEmpty) {
  const std::string file = write("empty.txt", "");
  EXPECT_TRUE(is_user_error(run_seer({"score", "--text-file", file}), {"empty.txt"}));
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt-file", file}), {"empty.txt"}));
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt", ""}), {"--prompt"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "ppl", "--data", file, "--selectors", "dense"}), {"empty.txt"}));
}

TEST_F(BadInput, PromptLongerThanTheContext) {
  std::string ids;
  for (int i = 0; i < 200; ++i) ids += "5 ";
  const std::string file = write("ids.txt", ids);
  EXPECT_TRUE(is_user_error(run_seer({"score", "--ids", file, "--max-context", "100"}),
                            {"200", "100", "--max-context"}));
  std::string text;
  for (int i = 0; i < 200; ++i) text += "def f(x): return x\n";
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt", text, "--max-context", "100"}),
                            {"100", "--max-context"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "ppl", "--data", file, "--lengths", "100000", "--selectors", "dense"}),
                    {"--lengths", "100000", "--max-context"}));
}

TEST_F(BadInput, Flags) {
  EXPECT_TRUE(is_user_error(run_seer({"info", "--colour"}), {"--colour"}));
  EXPECT_TRUE(is_user_error(run_seer({"fly"}), {"fly"}));
  EXPECT_TRUE(is_user_error(run_seer({}), {"subcommand"}));
  EXPECT_TRUE(is_user_error(run_seer({"eval"}), {"subcommand"}));
  EXPECT_TRUE(is_user_error(run_seer({"info", "--threads", "many"}), {"--threads", "many"}));
  EXPECT_TRUE(is_user_error(run_seer({"info", "--threads", "0"}), {"--threads"}));
  EXPECT_TRUE(is_user_error(run_seer({"info", "--device", "tpu"}), {"--device", "tpu"}));
  EXPECT_TRUE(is_user_error(run_seer({"info", "--device", "cuda"}), {"--device", "cuda"}));
  EXPECT_TRUE(is_user_error(run_seer({"info", "--dtype", "int4"}), {"--dtype", "int4"}));
}

TEST_F(BadInput, ScoreFlags) {
  const std::string ids = write("ids.txt", "1 2 3");
  const auto score = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"score", "--ids", ids});
    return run_seer(more);
  };
  EXPECT_TRUE(is_user_error(run_seer({"score"}), {"--text-file", "--ids"}));
  EXPECT_TRUE(is_user_error(score({"--text-file", ids}), {"--text-file", "--ids"}));
  EXPECT_TRUE(is_user_error(score({"--density", "0.5", "--nz-ratio", "0.5"}), {"density"}));
  EXPECT_TRUE(is_user_error(score({"--density", "1.5"}), {"--density", "1.5"}));
  EXPECT_TRUE(is_user_error(score({"--selector", "magic"}), {"selector", "magic"}));
  EXPECT_TRUE(is_user_error(score({"--selector", "local"}), {"--selector local", "--nz-ratio"}));
  EXPECT_TRUE(is_user_error(score({"--selector", "dense", "--density", "0.5"}), {"--selector dense"}));
  EXPECT_TRUE(is_user_error(score({"--gate", folder().string()}), {"--gate", "--density"}));
  EXPECT_TRUE(is_user_error(score({"--token-budget", "512"}), {"--token-budget"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"score", "--ids", write("words.txt", "1 two 3")}), {"words.txt", "two"}));
  EXPECT_TRUE(is_user_error(run_seer({"score", "--ids", write("large.txt", "1 4096 3")}), {"4096"}));
  EXPECT_TRUE(is_user_error(run_seer({"score", "--ids", write("one.txt", "1")}), {"one.txt"}));
  const std::string other = write(
      "other.safetensors", safetensors_image(R"({"x":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}})", 8));
  EXPECT_TRUE(is_user_error(run_seer({"score", "--ids", other}), {"other.safetensors", "input_ids"}));
}

TEST_F(BadInput, GenerateFlags) {
  EXPECT_TRUE(is_user_error(run_seer({"generate"}), {"--prompt"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"generate", "--prompt", "x", "--temperature", "-1"}), {"--temperature"}));
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt", "x", "--top-p", "0"}), {"--top-p"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"generate", "--prompt", "x", "--max-new-tokens", "0"}), {"--max-new-tokens"}));
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt", "x", "--chat"}), {"--chat", "chat_template"}));
  EXPECT_TRUE(is_user_error(run_seer({"generate", "--prompt", "x", "--system", "y"}), {"--system"}));
}

TEST_F(BadInput, EvalFlags) {
  const std::string docs = write("docs.jsonl", "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7, 8]}\n");
  const auto eval = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"eval", "ppl", "--data", docs, "--lengths", "8", "--json", path("rows.json")});
    return run_seer(more);
  };
  EXPECT_TRUE(is_user_error(run_seer({"eval", "ppl"}), {"--data"}));
  EXPECT_TRUE(is_user_error(run_seer({"eval", "ppl", "--data", path("none")}), {"--data", path("none")}));
  EXPECT_TRUE(is_user_error(eval({"--rule", "luck"}), {"rule", "luck"}));
  EXPECT_TRUE(is_user_error(eval({"--values", "0.5,1.5"}), {"--values", "1.5"}));
  EXPECT_TRUE(is_user_error(eval({"--values", "half"}), {"--values", "half"}));
  EXPECT_TRUE(is_user_error(eval({"--selectors", "dense,magic"}), {"selector", "magic"}));
  EXPECT_TRUE(is_user_error(eval({"--sliding-window", "8"}), {"--sliding-window"}));
  EXPECT_TRUE(
      is_user_error(eval({"--selectors", "local", "--rule", "threshold", "--values", "0.1"}), {"local"}));
  EXPECT_TRUE(is_user_error(eval({"--selectors", "gate", "--gate", path("none")}), {"--gate"}));
  EXPECT_TRUE(is_user_error(
      run_seer({"eval", "ppl", "--data", docs, "--lengths", "100", "--selectors", "dense", "--quiet"}),
      {"docs.jsonl", "99"}));
  const std::string broken = write("broken.jsonl", "{\"input_ids\": [1, 2, 3]}\n{\"text\": 5}\n");
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "ppl", "--data", broken, "--selectors", "dense"}), {"broken.jsonl"}));
  EXPECT_FALSE(fs::exists(path("rows.json")));
  EXPECT_FALSE(fs::exists(path("rows.json.samples.jsonl")));
}

TEST_F(BadInput, ReportOfNothing) {
  EXPECT_TRUE(is_user_error(run_seer({"report"}), {"RESULTS"}));
  EXPECT_TRUE(is_user_error(run_seer({"report", path("none"), "--out", path("r.html")}), {path("none")}));
  write("run/ppl.json", "[{\"length\": 5}]");
  EXPECT_TRUE(
      is_user_error(run_seer({"report", path("run"), "--out", path("r.html")}), {"ppl.json", "row 1"}));
  EXPECT_FALSE(fs::exists(path("r.html")));
}

TEST_F(BadInput, DiskFullKeepsTheOldFile) {
  const std::string ids = write("ids.txt", "1 2 3 4 5 6 7 8");
  const std::string target = write("logits.safetensors", "the old contents");
  const ProgramResult result =
      run_seer({"score", "--ids", ids, "--logits", target, "--json"}, {.file_size_limit = 50000});
  EXPECT_TRUE(is_user_error(result, {"logits.safetensors"}));
  EXPECT_EQ(read_whole(target), "the old contents");
  // No temporary file stays.
  EXPECT_EQ(std::distance(fs::directory_iterator(folder()), fs::directory_iterator()), 2);
}

TEST_F(BadInput, DiskFullKeepsTheOldCheckpoint) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "def f" + std::to_string(i) + "(x):\n    return x\n";
  const std::string data = write("text.py", text);
  const std::vector<std::string> distill{
      "distill", "--data",  data,     "--out",   path("gate"), "--sequences",        "256:6", "--held-out",
      "1",       "--steps", "100000", "--batch", "2",          "--checkpoint-every", "1"};
  // Newlines are among the bytes of any checkpoint.
  const ProgramResult killed =
      run_seer(distill, {.kill_when = path("gate/checkpoint.safetensors"), .kill_lines = 1});
  ASSERT_EQ(killed.exit_code, -1) << killed.err;
  const std::string old = read_whole(path("gate/checkpoint.safetensors"));
  EXPECT_FALSE(old.empty());
  const ProgramResult full = run_seer(distill, {.file_size_limit = 1 << 20});
  EXPECT_EQ(full.exit_code, 2);
  EXPECT_NE(full.err.find("checkpoint.safetensors: cannot write"), std::string::npos) << full.err;
  EXPECT_EQ(read_whole(path("gate/checkpoint.safetensors")), old);
}

TEST_F(BadInput, OutputThatCannotBeWritten) {
  const std::string ids = write("ids.txt", "1 2 3 4");
  EXPECT_TRUE(is_user_error(run_seer({"score", "--ids", ids, "--logits", path("none/logits.safetensors")}),
                            {path("none/logits.safetensors")}));
}

}  // namespace
}  // namespace seer::test
