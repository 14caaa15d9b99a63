#include "eval/longbench_score.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/longbench_data.h"
#include "eval/longbench_metrics.h"
#include "eval/python_text.h"
#include "io/tensor_file.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using nlohmann::json;

TEST(LongBenchScoreGolden, RoundsAsTheHarness) {
  const fs::path path = test::golden_path("eval/longbench_rounding.jsonl");
  if (path.empty()) GTEST_SKIP() << "no golden eval/longbench_rounding.jsonl";
  std::ifstream file(path);
  std::string line;
  int cases = 0;
  for (; std::getline(file, line); ++cases) {
    SCOPED_TRACE(cases + 1);
    const json record = json::parse(line);
    const auto scores = record["scores"].get<std::vector<double>>();
    const LongBenchTaskScore score =
        longbench_task_score("task", scores, std::vector<std::int64_t>(scores.size(), 5000));
    EXPECT_EQ(score.buckets[1], record["bucket"].get<double>());
    EXPECT_EQ(score.plain, record["plain"].get<double>());
    EXPECT_TRUE(std::isnan(score.buckets[0]));
    std::vector<LongBenchTaskScore> tasks;
    for (const json& bucket : record["buckets"]) tasks.push_back({.buckets = {bucket.get<double>(), 0, 0}});
    EXPECT_EQ(longbench_average(tasks).buckets[0], record["averaged"].get<double>());
  }
  EXPECT_GT(cases, 0);
}

/// Scores of given predictions, the tasks in the order of `order`.
std::vector<LongBenchTaskScore> score_folder(const fs::path& folder, const std::vector<std::string>& order,
                                             bool by_bucket) {
  std::vector<LongBenchTaskScore> tasks;
  for (const std::string& name : order) {
    const LongBenchTask& task = find_longbench_task(name, "task");
    const auto given = read_longbench_predictions((folder / (name + ".jsonl")).string(), by_bucket);
    std::vector<double> scores;
    std::vector<std::int64_t> lengths;
    for (const LongBenchPrediction& line : given) {
      EXPECT_EQ(line.defect, "");
      scores.push_back(longbench_score(task, line.prediction, line.answers, given.back().all_classes));
      lengths.push_back(line.length);
    }
    tasks.push_back(longbench_task_score(name, scores, lengths));
  }
  return tasks;
}

class GivenPredictions : public ::testing::TestWithParam<const char*> {};

TEST_P(GivenPredictions, GiveTheHarnessResultFilesByteForByte) {
  const fs::path folder = test::golden_path(std::string("eval/") + GetParam());
  if (folder.empty()) GTEST_SKIP() << "no golden eval/" << GetParam();
  const fs::path predictions = fs::directory_iterator(folder / "pred_e")->path();
  for (const auto& [file, by_bucket] :
       {std::pair{"result.json", true}, std::pair{"result_flat.json", false}}) {
    const std::string expected = read_file((folder / file).string());
    // The harness takes tasks as the file system lists them; their order in its result is that one.
    std::vector<std::pair<std::size_t, std::string>> at;
    for (const auto& entry : fs::directory_iterator(predictions)) {
      const std::string name = entry.path().stem().string();
      at.emplace_back(expected.find("\"" + name + "\""), name);
    }
    std::sort(at.begin(), at.end());
    std::vector<std::string> order;
    for (const auto& [position, name] : at) order.push_back(name);
    const std::vector<LongBenchTaskScore> tasks = score_folder(predictions, order, by_bucket);
    EXPECT_EQ(longbench_result_json(tasks, by_bucket), expected);
    if (!by_bucket || !fs::exists(folder / "average_score.txt")) continue;
    const LongBenchTaskScore average = longbench_average(tasks);
    std::string printed;
    for (std::size_t b = 0; b < kLongBenchBuckets.size(); ++b)
      printed += fmt::format("Range: {}, Average Score: {:.2f}\n", kLongBenchBuckets[b], average.buckets[b]);
    EXPECT_EQ(printed, read_file((folder / "average_score.txt").string()));
  }
}

INSTANTIATE_TEST_SUITE_P(LongBenchScoreGolden, GivenPredictions,
                         ::testing::Values("longbench_e", "longbench_e_empty_bucket"));

}  // namespace
}  // namespace seer
