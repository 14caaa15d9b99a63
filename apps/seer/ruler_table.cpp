#include "ruler_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>

#include "eval/python_text.h"

using namespace seer;

namespace {

constexpr int kColumn = 13;

std::string setting_name(const EvalSetting& setting) {
  return setting.is_dense() ? "dense"
                            : fmt::format("{} {:.3g}", name_of(setting.selector), setting.sparsity.value);
}

void print_line(const std::string& name, std::size_t settings,
                const std::function<std::string(std::size_t setting)>& cell) {
  fmt::print("{:<16}", name);
  for (std::size_t s = 0; s < settings; ++s) fmt::print("  {:>{}}", cell(s), kColumn);
  fmt::print("\n");
}

}  // namespace

void print_ruler_table(std::span<const std::vector<RulerRow>> rows,
                       std::span<const GenerationSummary> totals) {
  const std::vector<RulerRow>& first = rows.front();
  const std::size_t settings = first.size();
  print_line(fmt::format("{} tokens", first.front().length), settings,
             [&](std::size_t s) { return setting_name(first[s].setting); });
  for (const std::vector<RulerRow>& task : rows)
    print_line(task.front().task, settings, [&](std::size_t s) {
      return task[s].summary.samples > 0 ? fmt::format("{:.2f}", task[s].score) : std::string("-");
    });
  print_line("average", settings, [&](std::size_t s) {
    std::vector<const RulerRow*> of_setting;
    for (const std::vector<RulerRow>& task : rows) of_setting.push_back(&task[s]);
    return fmt::format("{:.2f}", ruler_average(of_setting));
  });
  print_line("density", settings, [&](std::size_t s) { return fmt::format("{:.4f}", totals[s].density); });
  print_line("first token", settings,
             [&](std::size_t s) { return fmt::format("{:.3f} s", totals[s].ttft_seconds); });
  const auto dense =
      std::find_if(first.begin(), first.end(), [](const RulerRow& row) { return row.setting.is_dense(); });
  if (dense != first.end() && settings > 1) {
    const double of_dense = totals[static_cast<std::size_t>(dense - first.begin())].ttft_seconds;
    print_line("speed-up", settings, [&](std::size_t s) {
      return first[s].setting.is_dense() || totals[s].ttft_seconds == 0
                 ? std::string("-")
                 : fmt::format("{:.2f} x", of_dense / totals[s].ttft_seconds);
    });
  }
  print_line("empty / failed", settings, [&](std::size_t s) {
    return fmt::format("{} / {} of {}", totals[s].empty_predictions, totals[s].failed,
                       totals[s].samples + totals[s].failed);
  });
  fmt::print("\n");
  std::fflush(stdout);
}

void print_ruler_scores(std::span<const RulerTaskScore> scores) {
  fmt::print("{:<16}  {:>6}  {:>7}  {:>5}\n", "task", "score", "samples", "empty");
  double sum = 0;
  for (const RulerTaskScore& score : scores) {
    fmt::print("{:<16}  {:>6.2f}  {:>7}  {:>5}\n", score.task->name, score.score, score.samples, score.nulls);
    sum += score.score;
  }
  fmt::print("{:<16}  {:>6.2f}\n", "average", python_round(sum / static_cast<double>(scores.size())));
}
