// RULER's scores against the published harness, and its files.
#include "eval/ruler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "eval/python_text.h"
#include "eval/ruler_data.h"
#include "eval/ruler_results.h"
#include "io/tensor_file.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using nlohmann::json;

TEST(RulerGolden, Scores) {
  const fs::path path = test::golden_path("eval/ruler_scores.jsonl");
  if (path.empty()) GTEST_SKIP() << "no golden eval/ruler_scores.jsonl";
  std::ifstream file(path);
  int cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    SCOPED_TRACE(line.substr(0, 300));
    const json record = json::parse(line);
    const RulerMatch match =
        record["metric"] == name_of(RulerMatch::kAll) ? RulerMatch::kAll : RulerMatch::kPart;
    std::vector<double> scores;
    int nulls = 0;
    for (std::size_t i = 0; i < record["preds"].size(); ++i) {
      const std::string text = postprocess_ruler(record["preds"][i].get<std::string>());
      EXPECT_EQ(text, record["processed"][i]);
      nulls += text.empty();
      scores.push_back(match_ruler(match, text, record["refs"][i].get<std::vector<std::string>>()));
    }
    EXPECT_NEAR(ruler_percent(scores), record["score"].get<double>(), 1e-12);
    EXPECT_EQ(fmt::format("{}/{}", nulls, scores.size()), record["nulls"]);
  }
  EXPECT_GT(cases, 20);
}

TEST(RulerGolden, FolderOfPredictions) {
  const fs::path folder = test::golden_path("eval/ruler");
  if (folder.empty()) GTEST_SKIP() << "no golden eval/ruler";
  std::vector<RulerTaskPredictions> tasks;
  std::vector<RulerTaskScore> scores;
  for (const RulerTask& task : ruler_tasks()) {
    tasks.push_back(
        {&task, read_ruler_predictions((folder / "pred" / (std::string(task.name) + ".jsonl")).string())});
    scores.push_back(score_ruler_task(task, tasks.back().predictions));
  }
  EXPECT_EQ(ruler_summary_csv(scores), read_file((folder / "summary.csv").string()));
  EXPECT_EQ(ruler_submission_csv(tasks), read_file((folder / "submission.csv").string()));
}

TEST(RulerGolden, SamplesBecomeTheLinesOfTheHarness) {
  const fs::path folder = test::golden_path("eval/ruler");
  if (folder.empty()) GTEST_SKIP() << "no golden eval/ruler";
  for (const RulerFile& file : find_ruler_files(folder.string(), {}, {})) {
    const std::vector<RulerSample> samples = read_ruler_samples(file);
    std::ifstream expected(folder / "pred" / (std::string(file.task->name) + ".jsonl"));
    std::string line;
    for (const RulerSample& sample : samples) {
      ASSERT_TRUE(std::getline(expected, line));
      const json record = json::parse(line);
      EXPECT_EQ(json::parse(ruler_prediction_line(sample, record["pred"].get<std::string>())), record);
    }
  }
}

TEST(Ruler, TasksByName) {
  EXPECT_EQ(ruler_tasks().size(), 13u);
  EXPECT_EQ(ruler_task("vt").max_new_tokens, 30);
  EXPECT_EQ(ruler_task("qa_2").match, RulerMatch::kPart);
  EXPECT_THROW(ruler_task("niah"), Error);
}

class RulerFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ("seer_ruler_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  fs::path folder_;
};

constexpr const char* kLine = R"({"index": 3, "input": "text", "outputs": ["a"], "answer_prefix": "It is"})";

TEST_F(RulerFiles, EveryPublishedLayoutIsFound) {
  const std::vector<const RulerTask*> vt{&ruler_task("vt")};
  write("8192/data/vt/validation.jsonl", kLine);
  write("4096/vt/validation.jsonl", kLine);
  write("4096/cwe.jsonl", kLine);
  write("notes/vt.jsonl", kLine);
  auto files = find_ruler_files(folder_.string(), {}, {});
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[0].task->name, "vt");
  EXPECT_EQ(files[0].length, 4096);
  EXPECT_EQ(files[1].task->name, "cwe");
  EXPECT_EQ(files[2].length, 8192);
  EXPECT_EQ(find_ruler_files(folder_.string(), vt, {}).size(), 2u);
  EXPECT_EQ(find_ruler_files(folder_.string(), vt, std::vector<std::int64_t>{8192}).size(), 1u);
  EXPECT_THROW(find_ruler_files(folder_.string(), {}, std::vector<std::int64_t>{16384}), Error);
  const std::vector<const RulerTask*> fwe{&ruler_task("fwe")};
  EXPECT_THROW(find_ruler_files(folder_.string(), fwe, {}), Error);
  EXPECT_THROW(find_ruler_files((folder_ / "none").string(), {}, {}), Error);
  files = find_ruler_files((folder_ / "notes").string(), {}, {});
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].length, 0);
  EXPECT_EQ(read_ruler_samples(files[0])[0].index, 3);
}

TEST_F(RulerFiles, BadLinesAreNamedAndKept) {
  write("vt.jsonl", std::string(kLine) + "\n" + kLine +
                        R"(
{"index": 4, "input": "text"}

{"index": 5, "input": 7, "outputs": ["a"]}
{"index": "6", "input": "text", "outputs": ["a"]}
{"index": 7, "input": "text", "outputs": []}
{"index": 8, "input": "text", "outputs": ["a", 1]}
[1]
{"index": 9, "input": "te)");
  const auto samples = read_ruler_samples({&ruler_task("vt"), 0, (folder_ / "vt.jsonl").string()});
  const std::vector<std::string> expected{
      "",        "earlier line", "outputs",     "input: expected a string", "index", "outputs",
      "outputs", "JSON object",  "invalid JSON"};
  ASSERT_EQ(samples.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(samples[i].defect.empty(), i == 0) << samples[i].defect;
    EXPECT_NE(samples[i].defect.find(expected[i]), std::string::npos) << samples[i].defect;
  }
  EXPECT_TRUE(samples[3].source.ends_with("vt.jsonl:5")) << samples[3].source;
  write("empty.jsonl", "\n");
  EXPECT_THROW(read_ruler_samples({&ruler_task("vt"), 0, (folder_ / "empty.jsonl").string()}), Error);
}

}  // namespace
}  // namespace seer
