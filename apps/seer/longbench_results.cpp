#include "longbench_results.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/density_profile.h"
#include "eval/longbench_metrics.h"
#include "io/tensor_file.h"

using namespace seer;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// A score that JSON can hold.
Json number_or_null(double value) { return std::isnan(value) ? Json() : Json(value); }

}  // namespace

LongBenchResults::LongBenchResults(const LongBenchFlags& flags, std::vector<LongBenchTaskRun> tasks,
                                   std::vector<EvalSetting> settings, std::string model_folder, Json origin)
    : flags_(flags),
      tasks_(std::move(tasks)),
      settings_(std::move(settings)),
      model_folder_(std::move(model_folder)),
      origin_(std::move(origin)),
      table_(flags.e) {
  std::size_t first = 0;
  for (const LongBenchTaskRun& task : tasks_) {
    firsts_.push_back(first);
    first += task.samples.size();
  }
}

double LongBenchResults::score(std::size_t sample, std::string_view prediction) const {
  const std::size_t t = task_of(sample);
  const LongBenchTaskRun& run = tasks_[t];
  return longbench_score(*run.task, prediction, run.samples[sample - firsts_[t]].answers, run.all_classes());
}

void LongBenchResults::add_sample(std::size_t sample, const GenerationResults& results) {
  const std::size_t t = task_of(sample);
  if (sample + 1 != firsts_[t] + tasks_[t].samples.size()) return;
  std::vector<LongBenchRow> rows;
  for (std::size_t s = 0; s < settings_.size(); ++s) {
    rows.push_back(longbench_row(tasks_[t], firsts_[t], results, settings_, s));
    if (!flags_.results.empty())
      write_file_atomically((predictions_folder(s) / fmt::format("{}.jsonl", tasks_[t].task->name)).string(),
                            longbench_predictions(tasks_[t], firsts_[t], results, s));
  }
  if (rows_.empty()) table_.print_header();
  table_.print(rows);
  rows_.push_back(std::move(rows));
}

void LongBenchResults::finish(const GenerationResults& results) const {
  std::vector<std::size_t> all(results.records.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  std::vector<LongBenchRow> averages;
  for (std::size_t s = 0; s < settings_.size(); ++s)
    averages.push_back({.setting = settings_[s],
                        .score = longbench_average(scores_of(s)),
                        .summary = summarize(results, all, s)});
  table_.print(averages);
  print_densities(results);
  if (flags_.results.empty()) return;
  for (std::size_t s = 0; s < settings_.size(); ++s)
    write_file_atomically((predictions_folder(s) / "result.json").string(),
                          longbench_result_json(scores_of(s), flags_.e));
  Json rows = Json::array();
  for (const std::vector<LongBenchRow>& of_task : rows_)
    for (const LongBenchRow& row : of_task) rows.push_back(to_json(row));
  write_file_atomically((fs::path(flags_.results) / kLongBenchRowsFile).string(), rows.dump(1) + "\n");
}

std::size_t LongBenchResults::task_of(std::size_t sample) const {
  return static_cast<std::size_t>(std::upper_bound(firsts_.begin(), firsts_.end(), sample) -
                                  firsts_.begin()) -
         1;
}

fs::path LongBenchResults::predictions_folder(std::size_t setting) const {
  const fs::path folder = fs::path(flags_.results) / (flags_.e ? "pred_e" : "pred") /
                          longbench_predictions_folder(model_folder_, settings_[setting]);
  fs::create_directories(folder);
  return folder;
}

std::vector<LongBenchTaskScore> LongBenchResults::scores_of(std::size_t setting) const {
  std::vector<LongBenchTaskScore> scores;
  for (const std::vector<LongBenchRow>& of_task : rows_) scores.push_back(of_task[setting].score);
  return scores;
}

void LongBenchResults::print_densities(const GenerationResults& results) const {
  const auto groups = longbench_length_groups();
  for (std::size_t s = 0; s < settings_.size(); ++s) {
    if (settings_[s].is_dense()) continue;
    std::vector<DensityPoint> points;
    for (const auto& records : results.records) {
      if (!records[s]) continue;
      points.push_back({static_cast<double>(records[s]->prompt_tokens),
                        static_cast<double>(records[s]->selected_blocks) /
                            static_cast<double>(records[s]->causal_blocks)});
    }
    fmt::print("density by tokens of the prompt, {} {} {:.4g}:", name_of(settings_[s].selector),
               settings_[s].rule_name(), settings_[s].sparsity.value);
    const std::vector<double> means = mean_densities(points, groups);
    for (std::size_t g = 0; g < groups.size(); ++g)
      fmt::print("  {} {}", groups[g].name, means[g] > 0 ? fmt::format("{:.4f}", means[g]) : "-");
    fmt::print("\n");
  }
}

Json LongBenchResults::to_json(const LongBenchRow& row) const {
  Json scores = Json::object(), densities = Json::object();
  for (std::size_t b = 0; b < kLongBenchBuckets.size(); ++b) {
    const std::string bucket(kLongBenchBuckets[b]);
    scores[bucket] = number_or_null(row.score.buckets[b]);
    densities[bucket] = row.densities[b] > 0 ? Json(row.densities[b]) : Json();
  }
  const double score = row.summary.samples > 0 ? longbench_total(row.score, flags_.e) : 0.0;
  return generation_row({{"task", row.score.task}, {"scores", scores}, {"densities", densities}}, row.setting,
                        score, row.summary, origin_);
}
