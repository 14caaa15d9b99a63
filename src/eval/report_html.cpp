// The web page of a report.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>

#include "eval/report.h"
#include "eval/svg_chart.h"

namespace seer {
namespace {

/// Colours are Okabe and Ito's, which stay apart for the common kinds of colour blindness; lighter in the
/// dark.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #5b6570; --rule: #d7dce1; --band: #f4f6f8;
  --s0: #0072b2; --s1: #009e73; --s2: #d55e00; --s3: #b0538a; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #e8ebee; --soft: #a2abb5; --rule: #363c43; --band: #1d2125;
  --s0: #56b4e9; --s1: #35c79c; --s2: #f28e4b; --s3: #e29cc6; } }
@media print { :root { color-scheme: light;
  --paper: #ffffff; --ink: #000000; --soft: #444444; --rule: #bbbbbb; --band: #ffffff;
  --s0: #0072b2; --s1: #009e73; --s2: #d55e00; --s3: #b0538a; }
  figure, table { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.02rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem 0 .38rem 1.6rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; }
tr.dense > * { background: var(--band); }
td small { display: block; color: var(--soft); font-size: .8rem; }
.facts th { padding-left: 0; }
.facts th, .facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
figure { margin: .5rem 0 1.5rem; }
.charts { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
.charts > svg { width: 100%; max-width: 34rem; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .25rem 0 .5rem; font-size: .9rem; }
.legend span { display: inline-flex; align-items: center; gap: .45rem; }
.key { width: 30px; height: 12px; }
svg text { fill: var(--ink); font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg .title { font-weight: 600; font-size: 13px; }
svg .tick, svg .label { fill: var(--soft); }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); stroke-width: 1; fill: none; }
svg .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .mark { stroke: var(--paper); stroke-width: 1; }
svg .line.s0 { stroke: var(--s0); } svg .mark.s0 { fill: var(--s0); }
svg .line.s1 { stroke: var(--s1); } svg .mark.s1 { fill: var(--s1); }
svg .line.s2 { stroke: var(--s2); } svg .mark.s2 { fill: var(--s2); }
svg .line.s3 { stroke: var(--s3); } svg .mark.s3 { fill: var(--s3); }
svg .line.ideal { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
)css";

/// A selector keeps its colour and marker in every figure and report.
constexpr std::array<std::pair<std::string_view, const char*>, 4> kSelectorStyles{
    {{"gate", "s0"}, {"oracle", "s1"}, {"local", "s2"}, {"random", "s3"}}};

double loss_percent(const ReportRow& row, const ReportRow& dense) { return 100 * (row.ppl / dense.ppl - 1); }

/// Sparse rows of one selector and length, by rising measured density.
std::vector<const ReportRow*> curve(const ReportRun& run, std::string_view selector, std::int64_t length) {
  std::vector<const ReportRow*> rows;
  for (const ReportRow& row : run.rows)
    if (row.selector == selector && row.length == length) rows.push_back(&row);
  std::sort(rows.begin(), rows.end(),
            [](const ReportRow* a, const ReportRow* b) { return a->density < b->density; });
  return rows;
}

/// Smallest and largest of what was seen.
struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

std::string legend(const std::vector<ChartSeries>& series) {
  std::string html = R"(<div class="legend">)";
  for (const ChartSeries& line : series)
    html += fmt::format("<span>{}{}</span>", svg_legend_key(line), escape_html(line.name));
  return html + "</div>";
}

std::string figure(const std::vector<ChartSeries>& keys, const std::string& charts,
                   std::string_view caption) {
  if (charts.empty()) return {};
  return fmt::format("<figure>{}<div class=\"charts\">{}</div><figcaption>{}</figcaption></figure>\n",
                     legend(keys), charts, caption);
}

std::string loss_figure(const ReportRun& run) {
  Range density, loss;
  std::vector<ChartSeries> keys;
  for (const ReportRow& row : run.rows) {
    const ReportRow* dense = run.dense(row.length);
    if (row.is_dense() || dense == nullptr) continue;
    density.add(row.density);
    loss.add(loss_percent(row, *dense));
  }
  std::string charts;
  for (const std::int64_t length : run.lengths()) {
    const ReportRow* dense = run.dense(length);
    std::vector<ChartSeries> series;
    for (const auto& [selector, style] : kSelectorStyles) {
      ChartSeries line{.name = std::string(selector), .style = style};
      for (const ReportRow* row : curve(run, selector, length))
        if (dense != nullptr)
          line.points.push_back(
              {row->density, loss_percent(*row, *dense),
               fmt::format("{}: density {:.4f}, perplexity {:.4f} ({:+.2f} %)", row->setting(), row->density,
                           row->ppl, loss_percent(*row, *dense))});
      if (line.points.empty()) continue;
      if (std::none_of(keys.begin(), keys.end(),
                       [&](const ChartSeries& key) { return key.name == line.name; }))
        keys.push_back({.name = line.name, .style = line.style});
      series.push_back(std::move(line));
    }
    if (series.empty()) continue;
    charts += svg_chart(fmt::format("{} tokens", length),
                        linear_axis("measured density", 0, std::min(1.0, density.high * 1.06)),
                        percent_change_axis("perplexity over dense", std::min(loss.low * 1.1, -0.5),
                                            std::max(loss.high * 1.15, 1.0)),
                        series);
  }
  return figure(
      keys, charts,
      "Change of perplexity against dense attention, at the density that was measured. Lower is better; "
      "the scale is linear near zero and logarithmic beyond 1 %.");
}

std::string speed_figure(const ReportRun& run) {
  const bool has_gate = std::any_of(run.rows.begin(), run.rows.end(),
                                    [](const ReportRow& row) { return row.selector == "gate"; });
  const auto first_sparse =
      std::find_if(run.rows.begin(), run.rows.end(), [](const ReportRow& row) { return !row.is_dense(); });
  if (first_sparse == run.rows.end()) return {};
  const std::string selector = has_gate ? "gate" : first_sparse->selector;

  Range density, speed;
  density.add(1);
  speed.add(1);
  for (const std::int64_t length : run.lengths()) {
    const ReportRow* dense = run.dense(length);
    if (dense == nullptr) continue;
    for (const ReportRow* row : curve(run, selector, length)) {
      density.add(row->density);
      speed.add(1 / row->density);
      speed.add(dense->prefill_seconds / row->prefill_seconds);
      speed.add(dense->attention_seconds / row->sparse_attention_seconds());
    }
  }
  std::string charts;
  std::vector<ChartSeries> series;
  for (const std::int64_t length : run.lengths()) {
    const ReportRow* dense = run.dense(length);
    const std::vector<const ReportRow*> rows = curve(run, selector, length);
    if (dense == nullptr || rows.empty()) continue;
    series = {{.name = "ideal for attention: 1 / density", .style = "ideal"},
              {.name = "attention with selection", .style = "s2"},
              {.name = "whole prefill", .style = "s0"}};
    series[0].points = {{density.low, 1 / density.low, ""}, {1, 1, ""}};
    for (const ReportRow* row : rows) {
      const double attention = dense->attention_seconds / row->sparse_attention_seconds();
      const double prefill = dense->prefill_seconds / row->prefill_seconds;
      series[1].points.push_back(
          {row->density, attention,
           fmt::format("{}: density {:.4f}, attention with selection {:.3f} s, {:.2f} x", row->setting(),
                       row->density, row->sparse_attention_seconds(), attention)});
      series[2].points.push_back({row->density, prefill,
                                  fmt::format("{}: density {:.4f}, prefill {:.3f} s, {:.2f} x",
                                              row->setting(), row->density, row->prefill_seconds, prefill)});
    }
    charts +=
        svg_chart(fmt::format("{} tokens", length), log_axis("measured density", density.low * 0.93, 1.05),
                  log_axis("speed-up over dense", std::min(speed.low, 1.0) * 0.9, speed.high * 1.1), series);
  }
  return figure(
      series, charts,
      fmt::format("Speed-up of selector {} over this program's dense attention, by measured density. The "
                  "time to select blocks is included everywhere. Both axes are logarithmic.",
                  selector));
}

std::string density_figure(const ReportRun& run) {
  Range range;
  std::vector<ChartSeries> keys;
  std::string charts;
  for (const ReportRow& row : run.rows)
    if (row.rule == "adaptive" || row.rule == "nz_ratio") range.add(std::max(row.value, row.density));
  for (const std::int64_t length : run.lengths()) {
    std::vector<ChartSeries> series{{.name = "as asked", .style = "ideal"}};
    series[0].points = {{0, 0, ""}, {std::min(1.0, range.high), std::min(1.0, range.high), ""}};
    for (const auto& [selector, style] : kSelectorStyles) {
      ChartSeries line{.name = std::string(selector), .style = style};
      for (const ReportRow* row : curve(run, selector, length))
        if (row->rule == "adaptive" || row->rule == "nz_ratio")
          line.points.push_back(
              {row->value, row->density, fmt::format("{}: measured {:.4f}", row->setting(), row->density)});
      if (!line.points.empty()) series.push_back(std::move(line));
    }
    if (series.size() == 1) continue;
    const double high = std::min(1.0, range.high) * 1.08;
    charts += svg_chart(fmt::format("{} tokens", length), linear_axis("density asked for", 0, high),
                        linear_axis("measured density", 0, high), series);
    for (const ChartSeries& line : series)
      if (std::none_of(keys.begin(), keys.end(),
                       [&](const ChartSeries& key) { return key.name == line.name; }))
        keys.push_back({.name = line.name, .style = line.style});
  }
  return figure(keys, charts, "The share of causal blocks that was computed, against the share asked for.");
}

template <class Cell>
std::string table(const ReportRun& run, const Cell& cell) {
  std::string html = "<div class=\"scroll\"><table><thead><tr><th>attention</th>";
  for (const std::int64_t length : run.lengths()) html += fmt::format("<th>{} tokens</th>", length);
  html += "</tr></thead><tbody>\n";
  for (const std::string& setting : run.settings()) {
    html +=
        fmt::format("<tr{}><th>{}</th>", setting == "dense" ? " class=\"dense\"" : "", escape_html(setting));
    for (const std::int64_t length : run.lengths()) {
      const ReportRow* row = run.find(length, setting);
      html += fmt::format("<td>{}</td>", row != nullptr ? cell(*row, run.dense(length)) : "-");
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string perplexity_cell(const ReportRow& row, const ReportRow* dense) {
  if (row.is_dense() || dense == nullptr)
    return fmt::format("{:.4f}<small>density {:.4f}</small>", row.ppl, row.density);
  return fmt::format("{:.4f}<small>{:+.2f} % at {:.4f}</small>", row.ppl, loss_percent(row, *dense),
                     row.density);
}

std::string time_cell(const ReportRow& row, const ReportRow* dense) {
  const double attention = row.sparse_attention_seconds();
  if (row.is_dense() || dense == nullptr)
    return fmt::format("{:.3f} s<small>attention {:.3f} s</small>", row.prefill_seconds, attention);
  return fmt::format("{:.3f} s, {:.2f} x<small>attention {:.3f} s, {:.2f} x; selection {:.3f} s</small>",
                     row.prefill_seconds, dense->prefill_seconds / row.prefill_seconds, attention,
                     dense->attention_seconds / attention, row.select_seconds);
}

std::string note(std::string_view text) { return fmt::format("<p class=\"soft\">{}</p>\n", text); }

std::string section(const ReportRun& run) {
  std::string html = fmt::format("<section><h2>{}</h2>\n", escape_html(run.name));
  html += "<h3>Perplexity</h3>\n" + loss_figure(run) +
          note(
              "In small print: change against dense attention, at the measured density, the share of the "
              "causal 64x64 blocks that was computed.") +
          table(run, perplexity_cell);
  html += "<h3>Prefill time</h3>\n" + speed_figure(run) +
          note(
              "Seconds a document, without the logits, and speed-up over dense. In small print: attention "
              "together with the selection that it needs.") +
          table(run, time_cell);
  if (const std::string densities = density_figure(run); !densities.empty())
    html += "<h3>Density</h3>\n" + densities;
  html += "<h3>How this was measured</h3>\n<div class=\"scroll\"><table class=\"facts\"><tbody>";
  html += fmt::format("<tr><th>documents</th><td>{}</td></tr>", run.rows.front().documents);
  for (const auto& [key, value] : run.provenance)
    html += fmt::format("<tr><th>{}</th><td>{}</td></tr>", key, escape_html(value));
  return html + "</tbody></table></div></section>\n";
}

}  // namespace

std::string report_html(const std::vector<ReportRun>& runs) {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
      "<title>seer: learned block-sparse attention</title><style>{}</style></head><body>\n"
      "<h1>Learned block-sparse attention</h1>\n"
      "<p class=\"soft\">Perplexity, density and prefill time, dense and with selected blocks. Written by "
      "seer {}.</p>\n",
      kStyle, SEER_VERSION);
  for (const ReportRun& run : runs) html += section(run);
  return html + "</body></html>\n";
}

}  // namespace seer
