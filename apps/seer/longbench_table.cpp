#include "longbench_table.h"

#include <fmt/core.h>

#include <cmath>
#include <cstdio>
#include <string>

using namespace seer;

namespace {

/// "-" where there is no sample.
std::string score_cell(double score) { return std::isnan(score) ? "-" : fmt::format("{:.2f}", score); }

std::string score_columns(const LongBenchTaskScore& score, bool by_bucket) {
  std::string cells;
  if (by_bucket)
    for (const double bucket : score.buckets) cells += fmt::format("  {:>6}", score_cell(bucket));
  return cells + fmt::format("  {:>6}", score_cell(longbench_total(score, by_bucket)));
}

std::string score_header(bool by_bucket) {
  std::string names;
  if (by_bucket)
    for (const std::string_view bucket : kLongBenchBuckets) names += fmt::format("  {:>6}", bucket);
  return names + fmt::format("  {:>6}", "score");
}

}  // namespace

void LongBenchTable::print_header() const {
  fmt::print("{:<20}  {:<8}  {:<9}  {:>6}{}  {:>8}  {:>11}  {:>8}  {:>7}  {:>6}  {:>5}\n", "task", "selector",
             "rule", "value", score_header(by_bucket_), "density", "first token", "speed-up", "samples",
             "failed", "empty");
}

void LongBenchTable::print(std::span<const LongBenchRow> rows) const {
  const LongBenchRow* dense = nullptr;
  for (const LongBenchRow& row : rows)
    if (row.setting.is_dense()) dense = &row;
  for (const LongBenchRow& row : rows) {
    const GenerationSummary& sum = row.summary;
    const bool compared = dense != nullptr && dense != &row && sum.ttft_seconds > 0;
    fmt::print("{:<20}  {:<8}  {:<9}  {:>6}{}  {:>8.4f}  {:>9.3f} s  {:>8}  {:>7}  {:>6}  {:>5}\n",
               row.score.task, name_of(row.setting.selector), row.setting.rule_name(),
               row.setting.is_dense() ? "-" : fmt::format("{:.4g}", row.setting.sparsity.value),
               score_columns(row.score, by_bucket_), sum.density, sum.ttft_seconds,
               compared ? fmt::format("{:.2f} x", dense->summary.ttft_seconds / sum.ttft_seconds) : "-",
               sum.samples, sum.failed, sum.empty_predictions);
  }
  std::fflush(stdout);
}

void print_scored(std::span<const ScoredPredictions> rows, bool by_bucket) {
  fmt::print("{:<20}{}  {:>7}  {:>6}  {:>5}\n", "task", score_header(by_bucket), "samples", "failed",
             "empty");
  for (const ScoredPredictions& row : rows)
    fmt::print("{:<20}{}  {:>7}  {:>6}  {:>5}\n", row.score.task, score_columns(row.score, by_bucket),
               row.samples, row.failed, row.empty);
}
