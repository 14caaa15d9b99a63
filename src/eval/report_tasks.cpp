#include "eval/report_tasks.h"

#include <fmt/format.h>

#include <algorithm>

#include "eval/report_grid.h"
#include "eval/report_sections.h"

namespace seer {

std::vector<TaskMeans> task_means(const std::vector<TaskRow>& rows,
                                  const std::function<std::optional<double>(const TaskRow&)>& score_of) {
  std::vector<TaskMeans> all;
  for (const ReportSetting& setting : settings_of(rows)) {
    TaskMeans means{.setting = setting};
    double score = 0;
    for (const TaskRow& row : rows) {
      if (row.label() != setting.label()) continue;
      const std::optional<double> of_row = score_of(row);
      if (!of_row) continue;
      score += *of_row;
      means.density += row.density;
      means.ttft_seconds += row.ttft_seconds;
      means.samples += row.samples;
      means.failed += row.failed;
      ++means.tasks;
    }
    if (means.tasks > 0) {
      const auto tasks = static_cast<double>(means.tasks);
      means.score = score / tasks;
      means.density /= tasks;
      means.ttft_seconds /= tasks;
    }
    all.push_back(std::move(means));
  }
  return all;
}

std::optional<std::size_t> best_setting(const std::vector<TaskMeans>& means) {
  std::optional<std::size_t> best;
  Range scores;
  for (std::size_t i = 0; i < means.size(); ++i) {
    const TaskMeans& candidate = means[i];
    if (candidate.setting.is_dense() || candidate.setting.selector == "oracle" || !candidate.score) continue;
    scores.add(*candidate.score);
    if (!best || *candidate.score > *means[*best].score ||
        (*candidate.score == *means[*best].score && candidate.density < means[*best].density))
      best = i;
  }
  return scores.low < scores.high ? best : std::nullopt;
}

void add_score_figure(const std::vector<std::pair<std::string, std::vector<TaskMeans>>>& groups,
                      ReportPage& page) {
  Range density, score;
  for (const auto& [title, means] : groups) {
    for (const TaskMeans& point : means) {
      if (!point.score) continue;
      score.add(*point.score);
      if (!point.setting.is_dense()) density.add(point.density);
    }
  }
  if (density.high < density.low) return;  // dense only
  const double right = std::min(1.0, density.high * 1.06);
  const double margin = std::max(5.0, (score.high - score.low) * 0.08);
  std::vector<ChartSeries> keys;
  std::string charts;
  for (const auto& [title, means] : groups) {
    std::vector<ChartSeries> series;
    for (const TaskMeans& point : means)
      if (point.setting.is_dense() && point.score)
        series.push_back({.name = "dense",
                          .style = "ideal",
                          .points = {{0, *point.score, ""}, {right, *point.score, ""}}});
    for (const char* selector : kCurveSelectors) {
      ChartSeries line{.name = selector, .style = selector_style(selector)};
      for (const TaskMeans& point : means)
        if (point.setting.selector == selector && point.score)
          line.points.push_back({point.density, *point.score,
                                 fmt::format("{}: density {:.4f}, score {:.2f}", point.setting.label(),
                                             point.density, *point.score)});
      std::sort(line.points.begin(), line.points.end(),
                [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
      if (!line.points.empty()) series.push_back(std::move(line));
    }
    if (std::all_of(series.begin(), series.end(),
                    [](const ChartSeries& line) { return line.style == "ideal"; }))
      continue;
    for (const ChartSeries& line : series) add_key(keys, line);
    charts += svg_chart(title, linear_axis("measured density", 0, right),
                        linear_axis("score, mean over tasks", std::max(score.low - margin, 0.0),
                                    std::min(score.high + margin, 100.0)),
                        series);
  }
  page.figure(keys, charts, "Scores against the density that was measured, both means over the tasks.");
}

std::string failure_note(const std::vector<TaskRow>& rows) {
  std::int64_t samples = 0, failed = 0;
  for (const TaskRow& row : rows) {
    samples += row.samples;
    failed += row.failed;
  }
  return failed == 0 ? std::string() : fmt::format("Of {} samples {} failed.", samples, failed);
}

}  // namespace seer
