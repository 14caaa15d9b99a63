// seer eval longbench on made data: from the published layout to scores; interruption; bad input.
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "longbench_folder.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

class EvalLongBench : public LongBenchTest {
 protected:
  static constexpr int kSettings = 2;

  std::vector<std::string> arguments(const std::string& results,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all{"eval",         "longbench",  "--data",  path("bench"), "--selectors",
                                 "dense,oracle", "--dtype",    "float32", "--threads",   "1",
                                 "--results",    path(results)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  static json rows_of(const fs::path& results) { return json::parse(read_whole(results / "longbench.json")); }

  static std::map<std::string, std::string> outcome(const fs::path& results) {
    return outcome_of(results, "longbench.json", "pred_e");
  }
};

TEST_F(EvalLongBench, RunsThePublishedLayoutToScores) {
  const ProgramResult result = run_seer(arguments("run"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("no chat template"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("no files of the tasks multifieldqa_en"), std::string::npos) << result.err;
  EXPECT_NE(result.out.find("average of 4"), std::string::npos) << result.out;
  const json rows = rows_of(path("run"));
  ASSERT_EQ(rows.size(), static_cast<std::size_t>(kTasks * kSettings));
  for (const json& row : rows) {
    EXPECT_EQ(row["samples"], kSamples);
    EXPECT_EQ(row["failed"], 0);
    EXPECT_EQ(row["scores"].size(), 3u);
    EXPECT_TRUE(row["scores"]["8k+"].is_null() && row["densities"]["8k+"].is_null());
    EXPECT_GT(row["densities"]["0-4k"], 0.0);
    EXPECT_LE(row["densities"]["4-8k"], 1.0);
    EXPECT_EQ(row["last_block_dense"], row["selector"] != "dense");
    for (const char* name : {"rule",
                             "value",
                             "score",
                             "density",
                             "empty_predictions",
                             "ttft_seconds",
                             "select_seconds",
                             "attention_seconds",
                             "version",
                             "command",
                             "model",
                             "gate",
                             "data",
                             "dtype",
                             "device",
                             "isa",
                             "threads",
                             "seed",
                             "benchmark",
                             "chat_template"})
      EXPECT_TRUE(row.contains(name)) << name;
  }
  EXPECT_EQ(rows[0]["density"], 1.0);

  for (const char* folder : {"pico-llama-19m_dense", "pico-llama-19m_oracle_threshold_0.002"}) {
    const fs::path predictions = fs::path(path("run")) / "pred_e" / folder;
    const json first = json::parse(
        read_whole(predictions / "trec.jsonl").substr(0, read_whole(predictions / "trec.jsonl").find('\n')));
    EXPECT_EQ(first["answers"], json{"Item 0"});
    EXPECT_EQ(first["all_classes"].size(), 3u);
    EXPECT_EQ(first["length"], 0);
    EXPECT_FALSE(first["pred"].get<std::string>().empty());
    // Scored again from the files, as the Python scorer would.
    ASSERT_EQ(run_seer({"eval", "longbench", "--score", predictions.string(), "--results", path("again")})
                  .exit_code,
              0);
    EXPECT_EQ(read_whole(path("again/result.json")), read_whole(predictions / "result.json"));
  }
}

TEST_F(EvalLongBench, KilledAtRandomMomentsItEndsTheSame) {
  const ProgramResult whole = run_seer(arguments("whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto expected = outcome(path("whole"));
  kill_at_random_moments(arguments("cut"), whole.seconds, "longbench.samples.jsonl",
                         kTasks * kSamples * kSettings, [&] { EXPECT_EQ(outcome(path("cut")), expected); });
}

TEST_F(EvalLongBench, BadSamplesAreReportedAndCounted) {
  json no_paragraph = sample("passage_retrieval_en", 0);
  no_paragraph["answers"] = {"12"};
  json no_answers = sample("passage_retrieval_en", 1);
  no_answers.erase("answers");
  const std::string good = sample("passage_retrieval_en", 2).dump();
  const std::string data =
      write("bench/data/passage_retrieval_en_e.jsonl",
            no_paragraph.dump() + "\n" + no_answers.dump() + "\n" + good + "\n" + good.substr(0, 50));
  const ProgramResult result =
      run_seer(arguments("run", {"--tasks", "passage_retrieval_en,qasper", "--max-samples", "4"}));
  EXPECT_EQ(result.exit_code, 2);
  for (const char* part : {":1: answers: expected \"Paragraph N\", found '12'",
                           ":2: expected a field answers", ":4: expected a JSON object, found invalid JSON"})
    EXPECT_NE(result.err.find(data + part), std::string::npos) << part << "\n" << result.err;
  EXPECT_NE(result.err.find("seer: error: 3 of 8 samples failed"), std::string::npos) << result.err;
  const json rows = rows_of(path("run"));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["task"], "passage_retrieval_en");
  EXPECT_EQ(rows[0]["samples"], 1);
  EXPECT_EQ(rows[0]["failed"], 3);
  EXPECT_EQ(rows[2]["samples"], 4);
  EXPECT_EQ(rows[2]["failed"], 0);
}

TEST_F(EvalLongBench, LongPromptsLoseTheirMiddleUnlessToldOtherwise) {
  const std::vector<std::string> few{"--tasks", "qasper", "--max-samples", "6", "--max-context", "600"};
  ASSERT_EQ(run_seer(arguments("cut", few)).exit_code, 0);
  std::istringstream lines(read_whole(path("cut/longbench.samples.jsonl")));
  bool any = false;
  for (std::string line; std::getline(lines, line);) {
    const json record = json::parse(line);
    EXPECT_LE(record["prompt_tokens"], 110);  // 600 - 500, and a few by the cut
    any |= record["truncated"].get<bool>();
  }
  EXPECT_TRUE(any);
  std::vector<std::string> whole = few;
  whole.back() = "120";
  whole.emplace_back("--no-truncate");
  const ProgramResult result = run_seer(arguments("whole", whole));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("qasper_e.jsonl:6: the prompt has"), std::string::npos) << result.err;
  EXPECT_GT(rows_of(path("whole"))[0]["failed"], 0);
  EXPECT_GT(rows_of(path("whole"))[0]["samples"], 0);
}

TEST_F(EvalLongBench, ScoresGivenPredictions) {
  const std::string folder = path("given");
  const auto line = [](const char* prediction, int length) {
    return json{{"pred", prediction},
                {"answers", {"Paragraph 3"}},
                {"all_classes", nullptr},
                {"length", length}}
               .dump() +
           "\n";
  };
  write("given/passage_retrieval_en.jsonl", line("3", 10) + line("", 10) + line("paragraph 3 or 4", 5000));
  const ProgramResult result =
      run_seer({"eval", "longbench", "--score", folder, "--results", path("scored")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("passage_retrieval_en   50.00   50.00       -   50.00        3       0      1"),
            std::string::npos)
      << result.out;
  EXPECT_NE(read_whole(path("scored/result.json")).find("\"8k+\": NaN"), std::string::npos);
  ASSERT_EQ(run_seer({"eval", "longbench", "--score", folder, "--no-e", "--results", path("flat")}).exit_code,
            0);
  EXPECT_NE(read_whole(path("flat/result.json")).find("\"passage_retrieval_en\": 50.0,"), std::string::npos);

  write("given/trec.jsonl", line("x", 10));
  const ProgramResult bad = run_seer({"eval", "longbench", "--score", folder});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_NE(bad.err.find("trec.jsonl:1: all_classes: expected the classes of trec"), std::string::npos)
      << bad.err;
  EXPECT_NE(bad.err.find("1 of 4 predictions could not be scored"), std::string::npos) << bad.err;
}

TEST_F(EvalLongBench, WrongFlagsAreNamed) {
  const auto run = [&](const std::vector<std::string>& more) { return run_seer(arguments("run", more)); };
  EXPECT_TRUE(is_user_error(run({"--tasks", "hotpot"}), {"--tasks", "'hotpot'", "hotpotqa"}));
  EXPECT_TRUE(is_user_error(run({"--tasks", "lcc"}), {"lcc"}));
  EXPECT_TRUE(is_user_error(run({"--no-e"}), {"--data", ".jsonl"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "longbench", "--data", path("none")}), {"--data", path("none")}));
  EXPECT_TRUE(is_user_error(run({"--config", path("none")}), {path("none/dataset2prompt.json"), "--config"}));
  EXPECT_TRUE(is_user_error(run({"--max-context", "500"}), {"--max-context", "500"}));
  EXPECT_TRUE(is_user_error(run({"--max-samples", "-1"}), {"--max-samples"}));
  EXPECT_TRUE(is_user_error(
      run_seer({"eval", "longbench", "--data", path("bench"), "--selectors", "local", "--quiet"}),
      {"--selectors local"}));
  EXPECT_TRUE(is_user_error(run_seer({"eval", "longbench"}), {"--data"}));
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "longbench", "--score", path("bench")}), {"--score", path("bench")}));
  write("given/other.jsonl", "{}\n");
  EXPECT_TRUE(
      is_user_error(run_seer({"eval", "longbench", "--score", path("given")}), {"other.jsonl", "qasper"}));
  EXPECT_FALSE(fs::exists(path("run/longbench.json")));
}

}  // namespace
}  // namespace seer::test
