// Sparse decoding as a user runs it: the embedded model with a decode gate of random weights.
#include <nlohmann/json.hpp>
#include <sstream>

#include "program.h"
#include "support/compare.h"
#include "support/decode_gate.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

constexpr int kPromptTokens = 700;  // 11 blocks

class SparseDecoding : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    std::string ids;
    for (int i = 0; i < kPromptTokens; ++i) ids += (i == 0 ? "" : ", ") + std::to_string(i * i % 4000 + 2);
    prompt_ = write("prompt.jsonl", "{\"input_ids\": [" + ids + "]}\n");
    gate_ = write_gate("gate");
  }

  /// Returns the gate's folder.
  std::string write_gate(const std::string& name, bool torch_format = false) const {
    write_decode_gate(path(name), torch_format);
    return path(name);
  }

  std::vector<std::string> generate(std::vector<std::string> more) const {
    more.insert(more.begin(),
                {"generate", "--prompt-file", prompt_, "--max-new-tokens", "8", "--ignore-eos"});
    return more;
  }
  json run_json(std::vector<std::string> more) const {
    more.push_back("--json");
    const ProgramResult result = run_seer(generate(std::move(more)));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out, nullptr, false);
  }

  std::string prompt_, gate_;
};

TEST_F(SparseDecoding, InfoDescribesTheGate) {
  const ProgramResult info = run_seer({"info", "--gate", gate_});
  EXPECT_EQ(info.exit_code, 0) << info.err;
  EXPECT_NE(info.out.find("decode gate, hidden size 16, 0.2 M parameters"), std::string::npos) << info.out;
  EXPECT_EQ(info.out.find("calibrated"), std::string::npos) << info.out;
}

TEST_F(SparseDecoding, ReadsTheBudgetAndSaysSo) {
  const json dense = run_json({});
  EXPECT_EQ(dense["decode_density"], 1.0);
  const json all = run_json({"--gate", gate_, "--token-budget", "100000"});
  EXPECT_EQ(all["tokens"], dense["tokens"]);
  EXPECT_EQ(all["decode_density"], 1.0);
  EXPECT_EQ(all["density"], 1.0);

  // Of 11 or 12 blocks 3 are read, and the last one.
  const json sparse = run_json({"--gate", gate_, "--token-budget", "192"});
  EXPECT_GE(sparse["decode_density"].get<double>(), 3.0 / 12);
  EXPECT_LE(sparse["decode_density"].get<double>(), 4.0 / 11);
  EXPECT_EQ(sparse["density"], 1.0);
  EXPECT_EQ(sparse["selector"], "dense");
  EXPECT_EQ(run_json({"--gate", write_gate("torch", true), "--token-budget", "192"})["tokens"],
            sparse["tokens"]);

  const ProgramResult shown = run_seer(generate({"--decode-gate", gate_, "--token-budget", "192"}));
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_NE(shown.err.find("token budget 192, density 0.3"), std::string::npos) << shown.err;
}

TEST_F(SparseDecoding, ThresholdAndBothGates) {
  const json threshold = run_json({"--gate", gate_, "--threshold", "0.09"});
  EXPECT_LT(threshold["decode_density"].get<double>(), 1.0);
  EXPECT_EQ(threshold["selector"], "dense");
  EXPECT_EQ(run_json({"--decode-gate", gate_, "--decode-threshold", "0.09"})["decode_density"],
            threshold["decode_density"]);
  const json both = run_json({"--density", "0.5", "--decode-gate", gate_, "--token-budget", "192"});
  EXPECT_EQ(both["selector"], "gate");
  EXPECT_LT(both["density"].get<double>(), 0.8);
  EXPECT_LT(both["decode_density"].get<double>(), 0.4);
}

TEST_F(SparseDecoding, BadInput) {
  const std::string prefill_gate = (embedded_model().parent_path() / "pico-llama-19m-gates").string();
  const auto expect_error = [&](std::vector<std::string> more, const std::vector<std::string>& parts) {
    EXPECT_TRUE(is_user_error(run_seer(generate(std::move(more))), parts));
  };
  expect_error({"--token-budget", "512"}, {"--token-budget", "--decode-gate", "none"});
  expect_error({"--decode-threshold", "0.1"}, {"--decode-threshold", "--decode-gate"});
  expect_error({"--gate", prefill_gate, "--token-budget", "512"},
               {"--token-budget", "decode gate", "prefill gate"});
  expect_error({"--decode-gate", prefill_gate, "--token-budget", "512"},
               {"pico-llama-19m-gates", "decode gate", "prefill gate"});
  expect_error({"--gate", gate_}, {gate_, "--token-budget"});
  expect_error({"--gate", gate_, "--token-budget", "63"}, {"--token-budget", "64", "63"});
  expect_error({"--gate", gate_, "--threshold", "1.5"}, {"threshold", "1.5"});
  expect_error({"--gate", gate_, "--token-budget", "512", "--density", "0.5"}, {gate_, "--decode-gate"});
  expect_error({"--gate", gate_, "--token-budget", "512", "--threshold", "0.5"}, {"--threshold", "two"});
  expect_error({"--decode-gate", path("none"), "--token-budget", "512"}, {"--decode-gate", path("none")});
  const ProgramResult score =
      run_seer({"score", "--text-file", prompt_, "--gate", gate_, "--density", "0.5"});
  EXPECT_TRUE(is_user_error(score, {"prefill gate", "decode gate"}));
  fs::remove(path("gate/attn_gate_weights.safetensors"));
  expect_error({"--gate", gate_, "--token-budget", "512"}, {gate_, "attn_gate_weights", "neither"});
}

}  // namespace
}  // namespace seer::test
