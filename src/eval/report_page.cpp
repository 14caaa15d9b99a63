#include "eval/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "eval/report_style.h"

namespace seer {
namespace {

/// A bar would end the cell of a Markdown table.
std::string escape_markdown(std::string_view text) {
  std::string escaped;
  for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

std::string_view class_of(ReportTable::Kind kind) {
  switch (kind) {
    case ReportTable::Kind::kPlain:
      return "";
    case ReportTable::Kind::kDense:
      return " class=\"dense\"";
    case ReportTable::Kind::kReference:
      return " class=\"reference\"";
  }
  return "";
}

}  // namespace

void ReportPage::heading(int level, std::string_view text) {
  fmt::format_to(std::back_inserter(html_), "<h{0}>{1}</h{0}>\n", level, escape_html(text));
  fmt::format_to(std::back_inserter(markdown_), "{}{} {}\n\n", markdown_.empty() ? "" : "\n",
                 std::string(static_cast<std::size_t>(level), '#'), text);
}

void ReportPage::note(std::string_view text) {
  fmt::format_to(std::back_inserter(html_), "<p class=\"soft\">{}</p>\n", escape_html(text));
  fmt::format_to(std::back_inserter(markdown_), "{}\n\n", text);
}

void ReportPage::table(const ReportTable& table) {
  const auto html = std::back_inserter(html_), markdown = std::back_inserter(markdown_);
  fmt::format_to(html, "<div class=\"scroll\"><table><thead><tr>");
  fmt::format_to(markdown, "|");
  for (const std::string& name : table.header) {
    fmt::format_to(html, "<th>{}</th>", escape_html(name));
    fmt::format_to(markdown, " {} |", escape_markdown(name));
  }
  fmt::format_to(html, "</tr></thead><tbody>\n");
  fmt::format_to(markdown, "\n|");
  for (std::size_t i = 0; i < table.header.size(); ++i)
    fmt::format_to(markdown, "{}", i == 0 ? "---|" : "---:|");
  fmt::format_to(markdown, "\n");
  for (const ReportTable::Row& row : table.rows) {
    fmt::format_to(html, "<tr{}><th>{}</th>", class_of(row.kind), escape_html(row.name));
    fmt::format_to(markdown, "| {} |", escape_markdown(row.name));
    for (const ReportCell& cell : row.cells) {
      const std::string text = escape_html(cell.text);
      fmt::format_to(html, "<td>{}", cell.best ? fmt::format("<strong>{}</strong>", text) : text);
      fmt::format_to(markdown, " {0}{1}{0}", cell.best ? "**" : "", escape_markdown(cell.text));
      if (!cell.detail.empty()) {
        fmt::format_to(html, "<small>{}</small>", escape_html(cell.detail));
        fmt::format_to(markdown, " ({})", escape_markdown(cell.detail));
      }
      fmt::format_to(html, "</td>");
      fmt::format_to(markdown, " |");
    }
    fmt::format_to(html, "</tr>\n");
    fmt::format_to(markdown, "\n");
  }
  fmt::format_to(html, "</tbody></table></div>\n");
  fmt::format_to(markdown, "\n");
}

void ReportPage::figure(const std::vector<ChartSeries>& keys, const std::string& content,
                        std::string_view caption, Layout layout) {
  if (content.empty()) return;
  html_ += "<figure>";
  if (!keys.empty()) {
    html_ += "<div class=\"legend\">";
    for (const ChartSeries& key : keys)
      html_ += fmt::format("<span>{}{}</span>", svg_legend_key(key), escape_html(key.name));
    html_ += "</div>";
  }
  html_ += fmt::format("<div class=\"{}\">{}</div><figcaption>{}</figcaption></figure>\n",
                       layout == Layout::kCharts ? "charts" : "maps", content, escape_html(caption));
}

void ReportPage::raw_html(std::string_view html) { html_ += html; }

void ReportPage::facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  html_ += "<div class=\"scroll\"><table class=\"facts\"><tbody>";
  for (const auto& [key, value] : facts) {
    html_ += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", escape_html(key), escape_html(value));
    markdown_ += fmt::format("- {}: `{}`\n", key, value);
  }
  html_ += "</tbody></table></div>\n";
}

std::string ReportPage::html(std::string_view title, std::string_view subtitle) const {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
      "<title>seer: {0}</title><style>{1}</style></head><body>\n"
      "<h1>{0}</h1>\n<p class=\"soft\">{2} Written by seer {3}.</p>\n{4}</body></html>\n",
      escape_html(title), kReportStyle, escape_html(subtitle), SEER_VERSION, html_);
}

void add_key(std::vector<ChartSeries>& keys, const ChartSeries& series) {
  if (std::none_of(keys.begin(), keys.end(), [&](const ChartSeries& key) { return key.name == series.name; }))
    keys.push_back({.name = series.name, .style = series.style});
}

}  // namespace seer
