// RULER: scores by length, heat maps by task and length, needles by depth and length, time to first token.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/paper_results.h"
#include "eval/report_grid.h"
#include "eval/report_sections.h"
#include "eval/report_tasks.h"
#include "eval/svg_heat_map.h"

namespace seer {
namespace {

using Rows = std::vector<TaskRow>;

constexpr int kDepthBins = 10;

std::vector<TaskMeans> means_at(const Rows& rows, std::int64_t length) {
  return task_means(rows, [&](const TaskRow& row) {
    return row.length == length ? std::optional(row.score) : std::nullopt;
  });
}

std::string length_name(std::int64_t length) {
  return length % 1024 == 0 ? fmt::format("{}k", length / 1024) : std::to_string(length);
}

std::vector<std::string> tasks_of(const Rows& rows) {
  std::vector<std::string> tasks;
  for (const TaskRow& row : rows)
    if (std::find(tasks.begin(), tasks.end(), row.task) == tasks.end()) tasks.push_back(row.task);
  return tasks;
}

ReportTable by_setting(const Rows& rows, const std::vector<std::vector<TaskMeans>>& means) {
  ReportTable table{.header = {"attention"}};
  for (const std::int64_t length : lengths_of(rows)) table.header.push_back(fmt::format("{} tokens", length));
  for (const ReportSetting& setting : settings_of(rows)) {
    ReportTable::Row row{.name = setting.label()};
    if (setting.is_dense()) row.kind = ReportTable::Kind::kDense;
    table.rows.push_back(std::move(row));
  }
  for (ReportTable::Row& row : table.rows) row.cells.assign(means.size(), ReportCell{"-"});
  return table;
}

ReportTable score_table(const Rows& rows, const std::vector<std::vector<TaskMeans>>& means) {
  ReportTable table = by_setting(rows, means);
  for (std::size_t column = 0; column < means.size(); ++column) {
    const std::optional<std::size_t> best = best_setting(means[column]);
    for (std::size_t i = 0; i < means[column].size(); ++i)
      if (const TaskMeans& point = means[column][i]; point.score)
        table.rows[i].cells[column] = {fmt::format("{:.2f}", *point.score),
                                       fmt::format("density {:.4f}", point.density), best == i};
  }
  ReportTable::Row reference{.name = "paper, threshold 5e-4", .kind = ReportTable::Kind::kReference};
  bool has_paper = false;
  for (const std::int64_t length : lengths_of(rows)) {
    const auto found = std::find_if(paper::kRuler.begin(), paper::kRuler.end(),
                                    [&](const paper::Ruler& row) { return row.length == length; });
    has_paper = has_paper || found != paper::kRuler.end();
    reference.cells.push_back({found == paper::kRuler.end() ? "-" : fmt::format("{:.2f}", found->score)});
  }
  if (has_paper) table.rows.push_back(std::move(reference));
  return table;
}

ReportTable time_table(const Rows& rows, const std::vector<std::vector<TaskMeans>>& means) {
  ReportTable table = by_setting(rows, means);
  for (std::size_t column = 0; column < means.size(); ++column) {
    const TaskMeans& first = means[column].front();
    for (std::size_t i = 0; i < means[column].size(); ++i) {
      const TaskMeans& point = means[column][i];
      if (!point.score) continue;
      const bool compared = i > 0 && first.setting.is_dense() && first.score && point.ttft_seconds > 0;
      table.rows[i].cells[column] = {
          fmt::format("{:.3f} s", point.ttft_seconds),
          compared ? fmt::format("{:.2f} x", first.ttft_seconds / point.ttft_seconds) : std::string()};
    }
  }
  return table;
}

std::string task_map(const Rows& rows, const ReportSetting& setting) {
  HeatMap map{.title = setting.label(), .row_label = "task", .column_label = "tokens", .high = 100};
  map.rows = tasks_of(rows);
  const std::vector<std::int64_t> lengths = lengths_of(rows);
  for (const std::int64_t length : lengths) map.columns.push_back(length_name(length));
  for (const std::string& task : map.rows) {
    for (const std::int64_t length : lengths) {
      HeatMap::Cell cell;
      for (const TaskRow& row : rows)
        if (row.task == task && row.length == length && row.label() == setting.label())
          cell = {row.score, fmt::format("{:.0f}", row.score),
                  fmt::format("{}, {} tokens, {}: score {:.2f}, density {:.4f}, {} samples, {} failed", task,
                              length, setting.label(), row.score, row.density, row.samples, row.failed)};
      map.cells.push_back(std::move(cell));
    }
  }
  return svg_heat_map(map);
}

std::string needle_map(const std::vector<NeedleSample>& needles, const ReportSetting& setting) {
  const std::vector<std::int64_t> lengths = lengths_of(needles);
  std::vector<double> sums(kDepthBins * lengths.size()), counts(sums.size());
  for (const NeedleSample& needle : needles) {
    if (needle.label() != setting.label()) continue;
    const auto bin =
        std::min(static_cast<std::size_t>(needle.depth / 100 * kDepthBins), std::size_t{kDepthBins - 1});
    const auto column =
        static_cast<std::size_t>(std::find(lengths.begin(), lengths.end(), needle.length) - lengths.begin());
    sums[bin * lengths.size() + column] += needle.score;
    counts[bin * lengths.size() + column] += 1;
  }
  HeatMap map{.title = setting.label(), .row_label = "depth", .column_label = "tokens", .high = 100};
  for (const std::int64_t length : lengths) map.columns.push_back(length_name(length));
  for (std::size_t bin = 0; bin < kDepthBins; ++bin) {
    map.rows.push_back(fmt::format("{}-{} %", bin * 100 / kDepthBins, (bin + 1) * 100 / kDepthBins));
    for (std::size_t column = 0; column < lengths.size(); ++column) {
      const std::size_t at = bin * lengths.size() + column;
      const double score = sums[at] / counts[at];
      map.cells.push_back(
          counts[at] == 0 ? HeatMap::Cell{}
                          : HeatMap::Cell{score, fmt::format("{:.0f}", score),
                                          fmt::format("{} tokens, depth {}: score {:.2f} of {:.0f} samples",
                                                      lengths[column], map.rows.back(), score, counts[at])});
    }
  }
  return svg_heat_map(map);
}

}  // namespace

void add_ruler_section(const ReportRun& run, ReportPage& page) {
  const Rows& rows = run.ruler;
  if (rows.empty()) return;
  page.heading(3, "RULER");
  std::vector<std::pair<std::string, std::vector<TaskMeans>>> groups;
  std::vector<std::vector<TaskMeans>> means;
  for (const std::int64_t length : lengths_of(rows)) {
    means.push_back(means_at(rows, length));
    groups.emplace_back(fmt::format("{} tokens", length), means.back());
  }
  add_score_figure(groups, page);
  page.note(
      fmt::format("Mean score over {} tasks, 0 to 100; in small print the measured density. Marked: the best "
                  "of the sparse "
                  "selectors, the oracle left aside. {}",
                  tasks_of(rows).size(), failure_note(rows)));
  page.table(score_table(rows, means));
  std::string maps;
  for (const ReportSetting& setting : settings_of(rows)) maps += task_map(rows, setting);
  page.figure({}, maps, "Scores by task and length.", ReportPage::Layout::kMaps);
  if (!run.needles.empty()) {
    std::string needles;
    for (const ReportSetting& setting : settings_of(run.needles)) needles += needle_map(run.needles, setting);
    page.figure({}, needles,
                "Scores of the tasks with one needle, by the needle's depth in the context and the length.",
                ReportPage::Layout::kMaps);
  }
  page.note("Time to the first token, mean over tasks and samples; in small print the speed-up over dense.");
  page.table(time_table(rows, means));
}

}  // namespace seer
