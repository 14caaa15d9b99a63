// seer eval ruler: made-up samples and published files, from prompts to scores; interruption; bad input.
#include <fmt/core.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "program.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

class EvalRuler : public ProgramTest {
 protected:
  static constexpr int kSamples = 2;
  static constexpr int kTasks = 2;
  static constexpr int kSettings = 2;
  static constexpr int kLengths = 2;

  std::vector<std::string> arguments(const std::string& results,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all{"eval",    "ruler",     "--selectors", "oracle,dense", "--dtype",
                                 "float32", "--threads", "1",           "--results",    path(results)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::vector<std::string> made_up(const std::string& results) const {
    return arguments(results,
                     {"--tasks", "qa_1,vt", "--lengths", "640,512", "--samples", std::to_string(kSamples)});
  }
  std::vector<std::string> from_files(const std::string& results, const std::string& data) const {
    return arguments(results, {"--data", data, "--max-context", "700"});
  }

  static json rows_of(const fs::path& results) { return json::parse(read_whole(results / "ruler.json")); }

  static std::map<std::string, std::string> outcome(const fs::path& results) {
    return outcome_of(results, "ruler.json", "pred");
  }

  static std::string line(int index, const std::string& input, const std::string& answer) {
    return json{{"index", index}, {"input", input}, {"outputs", {answer}}, {"others", {{"id", index}}}}
               .dump() +
           "\n";
  }
};

TEST_F(EvalRuler, MadeUpSamplesToScores) {
  const ProgramResult result = run_seer(made_up("run"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"512 tokens", "640 tokens", "vt", "qa_1", "average", "density", "first token",
                           "speed-up", "oracle 0.0005"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
  const json rows = rows_of(path("run"));
  ASSERT_EQ(rows.size(), static_cast<std::size_t>(kTasks * kSettings * kLengths));
  EXPECT_EQ(rows[0]["length"], 640);
  EXPECT_EQ(rows[0]["task"], "vt");
  EXPECT_EQ(rows[0]["selector"], "dense");
  EXPECT_EQ(rows[0]["density"], 1.0);
  EXPECT_EQ(rows[1]["selector"], "oracle");
  EXPECT_EQ(rows[1]["rule"], "threshold");
  EXPECT_EQ(rows[1]["last_block_dense"], true);
  for (const json& row : rows) {
    EXPECT_EQ(row["samples"], kSamples);
    EXPECT_EQ(row["failed"], 0);
    EXPECT_GT(row["ttft_seconds"], 0.0);
    for (const char* name :
         {"value", "score", "empty_predictions", "select_seconds", "attention_seconds", "version", "command",
          "model", "gate", "data", "dtype", "device", "isa", "threads", "seed", "haystack"})
      EXPECT_TRUE(row.contains(name)) << name;
  }

  std::istringstream lines(read_whole(path("run/ruler.samples.jsonl")));
  for (std::string text; std::getline(lines, text);) {
    const json record = json::parse(text);
    EXPECT_LE(record["prompt_tokens"].get<int>() + 30, record["length"].get<int>());
    EXPECT_FALSE(record["outputs"].empty());
    EXPECT_TRUE(record.contains("score"));
  }
  // The harness' files, scored again as its own script would.
  for (const char* folder : {"dense/512", "oracle_threshold_0.0005/640"}) {
    const fs::path predictions = fs::path(path("run")) / "pred" / folder;
    const ProgramResult again =
        run_seer({"eval", "ruler", "--score", predictions.string(), "--results", path("again")});
    ASSERT_EQ(again.exit_code, 0) << again.err;
    for (const char* name : {"summary.csv", "submission.csv"})
      EXPECT_EQ(read_whole(fs::path(path("again")) / name), read_whole(predictions / name));
  }
}

TEST_F(EvalRuler, KilledAtRandomMomentsItEndsTheSame) {
  const ProgramResult whole = run_seer(made_up("whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto expected = outcome(path("whole"));
  kill_at_random_moments(made_up("cut"), whole.seconds, "ruler.samples.jsonl",
                         kTasks * kSamples * kSettings * kLengths,
                         [&] { EXPECT_EQ(outcome(path("cut")), expected); });
}

TEST_F(EvalRuler, PublishedFilesByLengthAndBadSamples) {
  std::string long_text;
  for (int i = 0; i < 400; ++i) long_text += "word ";
  const std::string good = line(0, "The river is the Tam. Which river is it? It is the", "Tam");
  write("bench/512/vt/validation.jsonl", good);
  const std::string bad =
      write("bench/768/qa_1/validation.jsonl",
            good + line(1, long_text, "x") + line(2, "", "x") + line(0, "again", "x") + good.substr(0, 40));
  const ProgramResult result = run_seer(from_files("run", path("bench")));
  EXPECT_EQ(result.exit_code, 2);
  for (const char* part : {":2: input: it has", ":3: input: expected a text", ":4: index: 0 stands in",
                           ":5: expected a JSON object, found invalid JSON"})
    EXPECT_NE(result.err.find(bad + part), std::string::npos) << part << "\n" << result.err;
  EXPECT_NE(result.err.find("seer: error: 4 of 6 samples failed"), std::string::npos) << result.err;
  const json rows = rows_of(path("run"));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["length"], 512);
  EXPECT_EQ(rows[2]["task"], "qa_1");
  EXPECT_EQ(rows[2]["samples"], 1);
  EXPECT_EQ(rows[2]["failed"], 4);
  const json prediction = json::parse(read_whole(path("run/pred/dense/768/qa_1.jsonl")));
  EXPECT_EQ(prediction["others"], (json{{"id", 0}}));
  EXPECT_EQ(prediction["truncation"], -1);
  EXPECT_EQ(prediction["length"], -1);
}

TEST_F(EvalRuler, FilesWithoutLengthsGetTheirOwn) {
  const fs::path golden = golden_path("eval/ruler");
  if (golden.empty()) GTEST_SKIP() << "no golden eval/ruler";
  const ProgramResult result =
      run_seer({"eval", "ruler", "--data", golden.string(), "--tasks", "vt,qa_1", "--samples", "1",
                "--selectors", "dense", "--threads", "1", "--results", path("run"), "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.err.empty()) << result.err;
  EXPECT_EQ(rows_of(path("run"))[0]["length"], 1024);
}

TEST_F(EvalRuler, ScoresOfThePublishedHarness) {
  const fs::path golden = golden_path("eval/ruler");
  if (golden.empty()) GTEST_SKIP() << "no golden eval/ruler";
  const ProgramResult result =
      run_seer({"eval", "ruler", "--score", (golden / "pred").string(), "--results", path("scored")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(read_whole(path("scored/summary.csv")), read_whole(golden / "summary.csv"));
  EXPECT_EQ(read_whole(path("scored/submission.csv")), read_whole(golden / "submission.csv"));

  const std::string broken = write("pred/vt.jsonl", read_whole(golden / "pred/vt.jsonl") + "{\"index\": 2");
  const ProgramResult partly = run_seer({"eval", "ruler", "--score", path("pred")});
  EXPECT_EQ(partly.exit_code, 2);
  EXPECT_NE(partly.err.find(broken + ":3: "), std::string::npos) << partly.err;
  EXPECT_NE(partly.err.find("1 of 3 predictions"), std::string::npos) << partly.err;
  EXPECT_NE(partly.out.find("10.00"), std::string::npos) << partly.out;
}

TEST_F(EvalRuler, BadFlags) {
  const auto ruler = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"eval", "ruler"});
    return run_seer(more);
  };
  EXPECT_TRUE(is_user_error(ruler({"--tasks", "niah"}), {"RULER", "niah_single_1", "'niah'"}));
  EXPECT_TRUE(is_user_error(ruler({"--lengths", "1000000", "--selectors", "dense"}),
                            {"--lengths", "1000000", "--max-context"}));
  EXPECT_TRUE(is_user_error(ruler({"--lengths", "100", "--selectors", "dense"}), {"niah_single_1", "100"}));
  EXPECT_TRUE(is_user_error(ruler({"--samples", "0", "--selectors", "dense"}), {"--samples"}));
  EXPECT_TRUE(is_user_error(ruler({"--data", path("none"), "--selectors", "dense"}), {path("none")}));
  EXPECT_TRUE(is_user_error(ruler({"--data", folder().string(), "--selectors", "dense"}),
                            {folder().string(), "validation.jsonl"}));
  EXPECT_TRUE(is_user_error(ruler({"--haystack", path("none"), "--selectors", "dense"}), {path("none")}));
  EXPECT_TRUE(is_user_error(ruler({"--haystack", path("x"), "--data", path("x"), "--selectors", "dense"}),
                            {"--haystack", "--data"}));
  EXPECT_TRUE(is_user_error(ruler({"--selectors", "dense,local", "--samples", "1", "--tasks", "vt"}),
                            {"--selectors local", "gate"}));
  EXPECT_TRUE(is_user_error(ruler({"--score", path("none")}), {"--score", path("none")}));
  EXPECT_TRUE(is_user_error(ruler({"--score", folder().string()}), {"--score", folder().string()}));
}

}  // namespace
}  // namespace seer::test
