// seer eval longbench --score: predictions that were made elsewhere.
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "eval/longbench_metrics.h"
#include "eval_longbench.h"
#include "io/tensor_file.h"
#include "longbench_table.h"

using namespace seer;
namespace fs = std::filesystem;

namespace {

/// TASK.jsonl of the folder, in the order of the harness.
std::vector<std::pair<const LongBenchTask*, std::string>> prediction_files(const LongBenchFlags& flags) {
  SEER_CHECK(fs::is_directory(flags.score), "--score: no such folder: {}", flags.score);
  std::map<const LongBenchTask*, std::string> found;  // by address: the order of longbench_tasks()
  for (const LongBenchTask* task : named_longbench_tasks(flags))
    found.emplace(task, (fs::path(flags.score) / fmt::format("{}.jsonl", task->name)).string());
  if (found.empty()) {
    for (const fs::directory_entry& entry : fs::directory_iterator(flags.score)) {
      const fs::path& path = entry.path();
      if (path.extension() != ".jsonl") continue;
      const LongBenchTask& task = find_longbench_task(path.stem().string(), path.string());
      found.emplace(&task, path.string());
    }
  }
  SEER_CHECK(!found.empty(), "--score: expected files TASK.jsonl, found none in {}", flags.score);
  return {found.begin(), found.end()};
}

ScoredPredictions score_file(const LongBenchTask& task, const std::string& path, bool with_lengths) {
  std::vector<LongBenchPrediction> lines = read_longbench_predictions(path, with_lengths);
  std::vector<std::string> classes;  // the harness takes the last line's for all
  for (const LongBenchPrediction& line : lines)
    if (line.defect.empty()) classes = line.all_classes;
  ScoredPredictions result;
  std::vector<double> scores;
  std::vector<std::int64_t> lengths;
  for (LongBenchPrediction& line : lines) {
    double score = 0;
    try {
      if (line.defect.empty()) score = longbench_score(task, line.prediction, line.answers, classes);
    } catch (const Error& error) {
      line.defect = error.what();
    }
    if (!line.defect.empty()) {
      fmt::print(stderr, "seer: failed sample: {}: {}\n", line.source, line.defect);
      ++result.failed;
      continue;
    }
    result.empty += line.prediction.empty();
    scores.push_back(score);
    lengths.push_back(line.length);
  }
  result.samples = static_cast<std::int64_t>(scores.size());
  result.score = longbench_task_score(task.name, scores, lengths);
  return result;
}

}  // namespace

void score_longbench(const LongBenchFlags& flags) {
  std::vector<ScoredPredictions> rows;
  std::vector<LongBenchTaskScore> scores;
  ScoredPredictions all;
  for (const auto& [task, path] : prediction_files(flags)) {
    rows.push_back(score_file(*task, path, flags.e));
    scores.push_back(rows.back().score);
    all.samples += rows.back().samples;
    all.failed += rows.back().failed;
    all.empty += rows.back().empty;
  }
  all.score = longbench_average(scores);
  rows.push_back(all);
  print_scored(rows, flags.e);
  if (!flags.results.empty()) {
    fs::create_directories(flags.results);
    write_file_atomically((fs::path(flags.results) / "result.json").string(),
                          longbench_result_json(scores, flags.e));
  }
  SEER_CHECK(all.failed == 0, "{} of {} predictions could not be scored; they are named above", all.failed,
             all.failed + all.samples);
}
