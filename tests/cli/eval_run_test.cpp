// seer eval run: a configuration to a results folder that seer report reads.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "longbench_folder.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

class EvalRun : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    std::string lines;
    for (int document = 0; document < 2; ++document) {
      json ids = json::array();
      for (int i = 0; i < 300; ++i) ids.push_back(10 + (i * i * 7 + document * 131 + i / 3) % 4000);
      lines += json{{"input_ids", ids}}.dump() + "\n";
    }
    write("docs.jsonl", lines);
    config_ = {{"results", path("results")},
               {"threads", 1},
               {"dtype", "float32"},
               {"models", {{{"name", "pico"}}, {{"name", "again"}, {"model", embedded_model().string()}}}},
               {"tasks",
                {{{"task", "ppl"},
                  {"data", path("docs.jsonl")},
                  {"lengths", {256, 128}},
                  {"selectors", {"dense", "local"}},
                  {"rule", "nz_ratio"},
                  {"values", {0.5}}}}}};
  }
  ProgramResult run() const { return run_seer({"eval", "run", write("run.json", config_.dump())}); }

  json config_;
};

TEST_F(EvalRun, RunsEverythingAndASecondTimeNothing) {
  const ProgramResult first = run();
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_NE(first.err.find("eval run: 2 of 2: ppl, again; about"), std::string::npos) << first.err;
  const json rows = json::parse(read_whole(path("results/pico/ppl.json")));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["length"], 128);
  EXPECT_EQ(rows[3]["length"], 256);
  const std::string samples = read_whole(path("results/pico/ppl.samples.jsonl"));
  EXPECT_EQ(std::count(samples.begin(), samples.end(), '\n'), 8);

  const ProgramResult second = run();
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_NE(second.err.find("8 of 8 samples are there already"), std::string::npos) << second.err;
  EXPECT_EQ(second.out, first.out);

  const ProgramResult report = run_seer({"report", path("results")});
  EXPECT_EQ(report.exit_code, 0) << report.err;
  EXPECT_LT(report.out.find("## again"), report.out.find("## pico"));
}

class EvalRunLongBench : public LongBenchTest {};

TEST_F(EvalRunLongBench, FromAPublishedFolderToTheReport) {
  const json config{{"results", path("results")},
                    {"threads", 1},
                    {"selectors", {"dense", "gate", "local"}},
                    {"tasks",
                     {{{"task", "longbench"},
                       {"data", path("bench")},
                       {"values", {0.002, 0.02}},
                       {"tasks", {"samsum", "trec"}},
                       {"max_samples", 4}}}}};
  const std::vector<std::string> arguments{"eval", "run", write("run.json", config.dump())};
  const ProgramResult first = run_seer(arguments);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const fs::path folder = path("results/embedded");
  const json rows = json::parse(read_whole(folder / "longbench.json"));
  ASSERT_EQ(rows.size(), 10u);  // 2 tasks, dense and two selectors with two values
  for (const json& row : rows) EXPECT_EQ(row["samples"], 4);
  for (const char* name : {"dense", "0.002", "0.02", "local_threshold_0.002"})
    EXPECT_TRUE(fs::exists(folder / "pred_e" / (std::string("pico-llama-19m_") + name) / "trec.jsonl"))
        << name;

  const ProgramResult second = run_seer(arguments);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_NE(second.err.find("40 of 40 samples are there already"), std::string::npos) << second.err;
  EXPECT_EQ(second.out, first.out);

  const ProgramResult report = run_seer({"report", path("results"), "--markdown", path("report.md")});
  ASSERT_EQ(report.exit_code, 0) << report.err;
  const std::string markdown = read_whole(path("report.md"));
  for (const char* part : {"LongBench-E", "samsum", "trec", "gate", "local"})
    EXPECT_NE(markdown.find(part), std::string::npos) << part << "\n" << markdown;
}

TEST_F(EvalRun, GoesOnAfterAnEvaluationThatFails) {
  config_["models"][0]["model"] = path("nothing");
  const ProgramResult result = run();
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("eval run: ppl, pico: MODEL: no such folder"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("1 of 2 evaluations failed"), std::string::npos);
  EXPECT_TRUE(fs::exists(path("results/again/ppl.json")));
}

TEST_F(EvalRun, WrongFlagsAreFoundBeforeAnyWork) {
  config_["tasks"][0]["threads"] = "many";
  EXPECT_TRUE(is_user_error(run(), {"ppl, pico", "--threads"}));
  config_["tasks"][0].erase("threads");
  config_["tasks"][0]["colour"] = 1;
  EXPECT_TRUE(is_user_error(run(), {"run.json", "task ppl", "colour"}));
  EXPECT_TRUE(is_user_error(run_seer({"eval", "run", path("nothing.json")}), {"nothing.json"}));
  EXPECT_FALSE(fs::exists(path("results")));
}

}  // namespace
}  // namespace seer::test
