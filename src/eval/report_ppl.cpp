// Perplexity, prefill time and density of `seer eval ppl`.
#include <fmt/format.h>

#include <algorithm>

#include "eval/paper_results.h"
#include "eval/report_grid.h"
#include "eval/report_sections.h"

namespace seer {
namespace {

using Rows = std::vector<PerplexityRow>;

const PerplexityRow* find(const Rows& rows, std::int64_t length, const std::string& label) {
  for (const PerplexityRow& row : rows)
    if (row.length == length && row.label() == label) return &row;
  return nullptr;
}

const PerplexityRow* dense_of(const Rows& rows, std::int64_t length) { return find(rows, length, "dense"); }

double loss_percent(const PerplexityRow& row, const PerplexityRow& dense) {
  return 100 * (row.ppl / dense.ppl - 1);
}

/// Sparse rows of one selector and length, by rising measured density.
std::vector<const PerplexityRow*> curve(const Rows& rows, std::string_view selector, std::int64_t length) {
  std::vector<const PerplexityRow*> found;
  for (const PerplexityRow& row : rows)
    if (row.selector == selector && row.length == length) found.push_back(&row);
  std::sort(found.begin(), found.end(),
            [](const PerplexityRow* a, const PerplexityRow* b) { return a->density < b->density; });
  return found;
}

/// The paper's loss over its own dense perplexity at this length; empty where it has none.
ChartSeries paper_losses(std::int64_t length) {
  ChartSeries line{.name = "paper, Llama-3.1-8B on PG19, top-k", .style = "paper"};
  for (const paper::Perplexity& row : paper::kPerplexity) {
    if (row.length != length) continue;
    for (std::size_t i = row.ppl.size(); i-- > 1;)
      line.points.push_back(
          {paper::kDensities[i], 100 * (row.ppl[i] / row.ppl[0] - 1),
           fmt::format("paper: density {}, perplexity {:.2f}", paper::kDensities[i], row.ppl[i])});
  }
  return line;
}

void add_loss_figure(const Rows& rows, ReportPage& page) {
  Range density, loss;
  for (const PerplexityRow& row : rows) {
    const PerplexityRow* dense = dense_of(rows, row.length);
    if (row.is_dense() || dense == nullptr) continue;
    density.add(row.density);
    loss.add(loss_percent(row, *dense));
    for (const ChartPoint& point : paper_losses(row.length).points) {
      density.add(point.x);
      loss.add(point.y);
    }
  }
  std::vector<ChartSeries> keys;
  std::string charts;
  for (const std::int64_t length : lengths_of(rows)) {
    const PerplexityRow* dense = dense_of(rows, length);
    if (dense == nullptr) continue;
    std::vector<ChartSeries> series;
    for (const char* selector : kCurveSelectors) {
      ChartSeries line{.name = selector, .style = selector_style(selector)};
      for (const PerplexityRow* row : curve(rows, selector, length))
        line.points.push_back({row->density, loss_percent(*row, *dense),
                               fmt::format("{}: density {:.4f}, perplexity {:.4f} ({:+.2f} %)", row->label(),
                                           row->density, row->ppl, loss_percent(*row, *dense))});
      if (!line.points.empty()) series.push_back(std::move(line));
    }
    if (series.empty()) continue;
    if (ChartSeries line = paper_losses(length); !line.points.empty()) series.push_back(std::move(line));
    for (const ChartSeries& line : series) add_key(keys, line);
    charts += svg_chart(fmt::format("{} tokens", length),
                        linear_axis("measured density", 0, std::min(1.0, density.high * 1.06)),
                        percent_change_axis("perplexity over dense", std::min(loss.low * 1.1, -0.5),
                                            std::max(loss.high * 1.15, 1.0)),
                        series);
  }
  page.figure(keys, charts,
              "Change of perplexity against dense attention, at the density that was measured. Lower is "
              "better; the scale is linear near zero and logarithmic beyond 1 %.");
}

void add_speed_figure(const Rows& rows, ReportPage& page) {
  const bool has_gate =
      std::any_of(rows.begin(), rows.end(), [](const PerplexityRow& row) { return row.selector == "gate"; });
  const auto first_sparse =
      std::find_if(rows.begin(), rows.end(), [](const PerplexityRow& row) { return !row.is_dense(); });
  if (first_sparse == rows.end()) return;
  const std::string selector = has_gate ? "gate" : first_sparse->selector;

  Range density, speed;
  density.add(1);
  speed.add(1);
  for (const std::int64_t length : lengths_of(rows)) {
    const PerplexityRow* dense = dense_of(rows, length);
    if (dense == nullptr) continue;
    for (const PerplexityRow* row : curve(rows, selector, length)) {
      density.add(row->density);
      speed.add(1 / row->density);
      speed.add(dense->prefill_seconds / row->prefill_seconds);
      speed.add(dense->attention_seconds / row->sparse_attention_seconds());
    }
  }
  std::string charts;
  std::vector<ChartSeries> series;
  for (const std::int64_t length : lengths_of(rows)) {
    const PerplexityRow* dense = dense_of(rows, length);
    const std::vector<const PerplexityRow*> sparse = curve(rows, selector, length);
    if (dense == nullptr || sparse.empty()) continue;
    series = {{.name = "ideal for attention: 1 / density", .style = "ideal"},
              {.name = "attention with selection", .style = "s2"},
              {.name = "whole prefill", .style = "s0"}};
    series[0].points = {{density.low, 1 / density.low, ""}, {1, 1, ""}};
    for (const PerplexityRow* row : sparse) {
      const double attention = dense->attention_seconds / row->sparse_attention_seconds();
      const double prefill = dense->prefill_seconds / row->prefill_seconds;
      series[1].points.push_back(
          {row->density, attention,
           fmt::format("{}: density {:.4f}, attention with selection {:.3f} s, {:.2f} x", row->label(),
                       row->density, row->sparse_attention_seconds(), attention)});
      series[2].points.push_back({row->density, prefill,
                                  fmt::format("{}: density {:.4f}, prefill {:.3f} s, {:.2f} x", row->label(),
                                              row->density, row->prefill_seconds, prefill)});
    }
    charts +=
        svg_chart(fmt::format("{} tokens", length), log_axis("measured density", density.low * 0.93, 1.05),
                  log_axis("speed-up over dense", std::min(speed.low, 1.0) * 0.9, speed.high * 1.1), series);
  }
  page.figure(series, charts,
              fmt::format("Speed-up of selector {} over this program's dense attention, by measured density. "
                          "The time to select blocks is included everywhere. Both axes are logarithmic.",
                          selector));
}

void add_density_figure(const Rows& rows, ReportPage& page) {
  const auto has_density = [](const PerplexityRow& row) {
    return row.rule == "adaptive" || row.rule == "nz_ratio";
  };
  Range range;
  for (const PerplexityRow& row : rows)
    if (has_density(row)) range.add(std::max(row.value, row.density));
  std::vector<ChartSeries> keys;
  std::string charts;
  for (const std::int64_t length : lengths_of(rows)) {
    std::vector<ChartSeries> series{{.name = "as asked", .style = "ideal"}};
    series[0].points = {{0, 0, ""}, {std::min(1.0, range.high), std::min(1.0, range.high), ""}};
    for (const char* selector : kCurveSelectors) {
      ChartSeries line{.name = selector, .style = selector_style(selector)};
      for (const PerplexityRow* row : curve(rows, selector, length))
        if (has_density(*row))
          line.points.push_back(
              {row->value, row->density, fmt::format("{}: measured {:.4f}", row->label(), row->density)});
      std::stable_sort(line.points.begin(), line.points.end(),
                       [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
      if (!line.points.empty()) series.push_back(std::move(line));
    }
    if (series.size() == 1) continue;
    const double high = std::min(1.0, range.high) * 1.08;
    charts += svg_chart(fmt::format("{} tokens", length), linear_axis("density asked for", 0, high),
                        linear_axis("measured density", 0, high), series);
    for (const ChartSeries& line : series) add_key(keys, line);
  }
  if (charts.empty()) return;
  page.heading(3, "Density");
  page.figure(keys, charts, "The share of causal blocks that was computed, against the share asked for.");
}

/// Lowest perplexity among selectors that were asked for the same amount; the oracle, which no program can
/// run, does not compete, and alone nothing is best.
bool is_best(const Rows& rows, const PerplexityRow& row) {
  if (row.is_dense() || row.selector == "oracle") return false;
  int rivals = 0;
  for (const PerplexityRow& other : rows) {
    if (other.length != row.length || other.value != row.value || other.is_dense() ||
        other.selector == "oracle" || &other == &row)
      continue;
    if (other.ppl <= row.ppl) return false;
    ++rivals;
  }
  return rivals > 0;
}

ReportCell perplexity_cell(const Rows& rows, const PerplexityRow& row, const PerplexityRow* dense) {
  if (row.is_dense() || dense == nullptr)
    return {fmt::format("{:.4f}", row.ppl), fmt::format("density {:.4f}", row.density), is_best(rows, row)};
  return {fmt::format("{:.4f}", row.ppl),
          fmt::format("{:+.2f} % at {:.4f}", loss_percent(row, *dense), row.density), is_best(rows, row)};
}

ReportCell time_cell(const Rows&, const PerplexityRow& row, const PerplexityRow* dense) {
  const double attention = row.sparse_attention_seconds();
  if (row.is_dense() || dense == nullptr)
    return {fmt::format("{:.3f} s", row.prefill_seconds), fmt::format("attention {:.3f} s", attention)};
  return {
      fmt::format("{:.3f} s, {:.2f} x", row.prefill_seconds, dense->prefill_seconds / row.prefill_seconds),
      fmt::format("attention {:.3f} s, {:.2f} x; selection {:.3f} s", attention,
                  dense->attention_seconds / attention, row.select_seconds)};
}

template <class Cell>
ReportTable table_of(const Rows& rows, const Cell& cell) {
  ReportTable table{.header = {"attention"}};
  for (const std::int64_t length : lengths_of(rows)) table.header.push_back(fmt::format("{} tokens", length));
  for (const ReportSetting& setting : settings_of(rows)) {
    ReportTable::Row out{.name = setting.label()};
    if (setting.is_dense()) out.kind = ReportTable::Kind::kDense;
    for (const std::int64_t length : lengths_of(rows)) {
      const PerplexityRow* row = find(rows, length, setting.label());
      out.cells.push_back(row != nullptr ? cell(rows, *row, dense_of(rows, length)) : ReportCell{"-"});
    }
    table.rows.push_back(std::move(out));
  }
  return table;
}

/// The paper's rows under one's own, where a length is in both; false where none is.
bool add_paper_rows(const std::vector<std::int64_t>& lengths, ReportTable& table) {
  const auto of_length = [](std::int64_t length) {
    return std::find_if(paper::kPerplexity.begin(), paper::kPerplexity.end(),
                        [&](const paper::Perplexity& row) { return row.length == length; });
  };
  if (std::none_of(lengths.begin(), lengths.end(),
                   [&](std::int64_t length) { return of_length(length) != paper::kPerplexity.end(); }))
    return false;
  for (std::size_t i = 0; i < paper::kDensities.size(); ++i) {
    ReportTable::Row row{
        .name = i == 0 ? std::string("paper, dense") : fmt::format("paper, top-k {}", paper::kDensities[i]),
        .kind = ReportTable::Kind::kReference};
    for (const std::int64_t length : lengths) {
      const auto found = of_length(length);
      if (found == paper::kPerplexity.end()) {
        row.cells.push_back({"-"});
        continue;
      }
      row.cells.push_back(
          {fmt::format("{:.2f}", found->ppl[i]),
           i == 0 ? std::string() : fmt::format("{:+.2f} %", 100 * (found->ppl[i] / found->ppl[0] - 1))});
    }
    table.rows.push_back(std::move(row));
  }
  return true;
}

}  // namespace

void add_perplexity_section(const ReportRun& run, ReportPage& page) {
  const Rows& rows = run.perplexity;
  if (rows.empty()) return;
  page.heading(3, "Perplexity");
  add_loss_figure(rows, page);
  ReportTable perplexities = table_of(rows, perplexity_cell);
  const bool has_paper = add_paper_rows(lengths_of(rows), perplexities);
  page.note(fmt::format(
      "{} document{}. In small print: change against dense attention, at the measured density, the share of "
      "the causal 64x64 blocks that was computed. Marked: the lowest perplexity of the selectors that were "
      "asked for the same amount, the oracle left aside.{}",
      rows.front().documents, rows.front().documents == 1 ? "" : "s",
      has_paper ? " The paper's rows are of Llama-3.1-8B-Instruct on PG19, another model and another text: "
                  "compare the changes."
                : ""));
  page.table(perplexities);

  page.heading(3, "Prefill time");
  add_speed_figure(rows, page);
  page.note(
      "Seconds a document, without the logits, and speed-up over dense. In small print: attention together "
      "with the selection that it needs.");
  page.table(table_of(rows, time_cell));
  add_density_figure(rows, page);
}

}  // namespace seer
