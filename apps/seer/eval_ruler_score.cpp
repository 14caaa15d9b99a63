// seer eval ruler --score: predictions that were made elsewhere.
#include <fmt/core.h>

#include <filesystem>

#include "core/check.h"
#include "eval/ruler_results.h"
#include "eval_ruler.h"
#include "io/tensor_file.h"
#include "ruler_table.h"

using namespace seer;
namespace fs = std::filesystem;

namespace {

/// TASK.jsonl of the folder, in the suite's order.
std::vector<RulerTaskPredictions> read_predictions(const RulerFlags& flags) {
  SEER_CHECK(fs::is_directory(flags.score), "--score: no such folder: {}", flags.score);
  std::vector<const RulerTask*> tasks = named_ruler_tasks(flags);
  if (tasks.empty())
    for (const RulerTask& task : ruler_tasks())
      if (fs::exists(fs::path(flags.score) / fmt::format("{}.jsonl", task.name))) tasks.push_back(&task);
  SEER_CHECK(!tasks.empty(), "--score: expected files TASK.jsonl of RULER's tasks, found none in {}",
             flags.score);
  std::vector<RulerTaskPredictions> read;
  for (const RulerTask* task : tasks)
    read.push_back({task, read_ruler_predictions(
                              (fs::path(flags.score) / fmt::format("{}.jsonl", task->name)).string())});
  return read;
}

}  // namespace

void score_ruler(const RulerFlags& flags) {
  const std::vector<RulerTaskPredictions> tasks = read_predictions(flags);
  std::int64_t failed = 0, all = 0;
  std::vector<RulerTaskScore> scores;
  for (const RulerTaskPredictions& task : tasks) {
    std::int64_t sound = 0;
    for (const RulerPrediction& prediction : task.predictions) {
      if (prediction.defect.empty()) {
        ++sound;
        continue;
      }
      fmt::print(stderr, "seer: failed sample: {}: {}\n", prediction.source, prediction.defect);
      ++failed;
    }
    all += static_cast<std::int64_t>(task.predictions.size());
    if (sound > 0) scores.push_back(score_ruler_task(*task.task, task.predictions));
  }
  if (!scores.empty()) print_ruler_scores(scores);
  if (!flags.results.empty()) {
    fs::create_directories(flags.results);
    const fs::path folder(flags.results);
    write_file_atomically((folder / "summary.csv").string(), ruler_summary_csv(scores));
    write_file_atomically((folder / "submission.csv").string(), ruler_submission_csv(tasks));
  }
  SEER_CHECK(failed == 0, "{} of {} predictions could not be scored; they are named above", failed, all);
}
