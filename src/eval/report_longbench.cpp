// LongBench-E: scores by task, averages by bucket.
#include <fmt/format.h>

#include <algorithm>

#include "eval/paper_results.h"
#include "eval/report_grid.h"
#include "eval/report_sections.h"
#include "eval/report_tasks.h"

namespace seer {
namespace {

using Rows = std::vector<TaskRow>;

std::vector<TaskMeans> all_means(const Rows& rows) {
  return task_means(rows, [](const TaskRow& row) { return std::optional(row.score); });
}

std::optional<double> number_of(
    const std::vector<std::pair<std::string, std::optional<double>>>& numbers_by_bucket,
    const std::string& bucket) {
  for (const auto& [name, number] : numbers_by_bucket)
    if (name == bucket) return number;
  return std::nullopt;
}

std::vector<TaskMeans> bucket_means(Rows rows, const std::string& bucket) {
  for (TaskRow& row : rows) row.density = number_of(row.densities, bucket).value_or(0);
  return task_means(rows, [&](const TaskRow& row) { return number_of(row.scores, bucket); });
}

std::vector<std::string> buckets_of(const Rows& rows) {
  std::vector<std::string> buckets;
  for (const TaskRow& row : rows)
    for (const auto& [name, score] : row.scores)
      if (std::find(buckets.begin(), buckets.end(), name) == buckets.end()) buckets.push_back(name);
  return buckets;
}

std::vector<std::string> tasks_of(const Rows& rows) {
  std::vector<std::string> tasks;
  for (const TaskRow& row : rows)
    if (std::find(tasks.begin(), tasks.end(), row.task) == tasks.end()) tasks.push_back(row.task);
  return tasks;
}

template <class Text>
ReportTable::Row row_of(const std::string& name, const std::vector<TaskMeans>& means, bool marks_best,
                        const Text& text) {
  ReportTable::Row row{.name = name};
  const std::optional<std::size_t> best = marks_best ? best_setting(means) : std::nullopt;
  for (std::size_t i = 0; i < means.size(); ++i) {
    ReportCell cell = means[i].score ? text(means[i]) : ReportCell{"-"};
    cell.best = best == i;
    row.cells.push_back(std::move(cell));
  }
  return row;
}

}  // namespace

void add_longbench_section(const ReportRun& run, ReportPage& page) {
  const Rows& rows = run.longbench;
  if (rows.empty()) return;
  page.heading(3, rows.front().benchmark);
  const std::vector<TaskMeans> means = all_means(rows);
  std::vector<std::pair<std::string, std::vector<TaskMeans>>> groups{{"all lengths", means}};
  for (const std::string& bucket : buckets_of(rows))
    groups.emplace_back(fmt::format("{} words", bucket), bucket_means(rows, bucket));
  add_score_figure(groups, page);

  ReportTable table{.header = {"task"}};
  for (const ReportSetting& setting : settings_of(rows)) table.header.push_back(setting.label());
  const auto score = [](const TaskMeans& point) { return ReportCell{fmt::format("{:.2f}", *point.score)}; };
  for (const std::string& task : tasks_of(rows)) {
    const std::vector<TaskMeans> of_task = task_means(
        rows, [&](const TaskRow& row) { return row.task == task ? std::optional(row.score) : std::nullopt; });
    table.rows.push_back(row_of(task, of_task, true, score));
  }
  const auto add_means = [&](const std::string& name, const std::vector<TaskMeans>& values) {
    table.rows.push_back(row_of(name, values, true, score));
    table.rows.back().kind = ReportTable::Kind::kDense;
  };
  add_means("mean", means);
  for (const std::string& bucket : buckets_of(rows))
    add_means(fmt::format("mean, {}", bucket), bucket_means(rows, bucket));
  table.rows.push_back(row_of("density", means, false, [](const TaskMeans& point) {
    return ReportCell{fmt::format("{:.4f}", point.density)};
  }));
  table.rows.push_back(row_of("time to first token", means, false, [&](const TaskMeans& point) {
    const bool compared = means.front().setting.is_dense() && means.front().score &&
                          !point.setting.is_dense() && point.ttft_seconds > 0;
    return ReportCell{
        fmt::format("{:.3f} s", point.ttft_seconds),
        compared ? fmt::format("{:.2f} x", means.front().ttft_seconds / point.ttft_seconds) : std::string()};
  }));
  const std::string paper_note = fmt::format(
      "The paper, Llama-3.1-8B-Instruct at threshold 2e-3 and density 0.50: {:.2f} / {:.2f} / {:.2f} by "
      "bucket, "
      "{:.2f} in all; dense {:.2f}. ",
      paper::kLongBenchBuckets[0], paper::kLongBenchBuckets[1], paper::kLongBenchBuckets[2],
      paper::kLongBench, paper::kLongBenchDense);
  page.note(
      fmt::format("Scores from 0 to 100. Marked: the best of the sparse selectors, the oracle left aside. "
                  "Density and time "
                  "to first token are means over the tasks. {}{}",
                  rows.front().benchmark == "LongBench-E" ? paper_note : "", failure_note(rows)));
  page.table(table);
}

}  // namespace seer
