// A report in the making: headings, notes, tables and figures, kept as a web page and as Markdown at once.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eval/svg_chart.h"

namespace seer {

struct ReportCell {
  std::string text;
  std::string detail = {};  // small print below the text; in brackets after it in Markdown
  bool best = false;
};

struct ReportTable {
  enum class Kind { kPlain, kDense, kReference };  // kReference: somebody else's numbers
  struct Row {
    std::string name;
    std::vector<ReportCell> cells;
    Kind kind = Kind::kPlain;
  };
  std::vector<std::string> header;  // the first stands above the rows' names
  std::vector<Row> rows;
};

/// Texts are plain; the page escapes them. Figures are in the web page only.
class ReportPage {
 public:
  void heading(int level, std::string_view text);  ///< 2 or 3
  void note(std::string_view text);
  void table(const ReportTable& table);
  /// `content`: <svg> elements in charts (drawn to the width of a column) or maps (in their own size). Adds
  /// nothing when it is empty.
  enum class Layout { kCharts, kMaps };
  void figure(const std::vector<ChartSeries>& keys, const std::string& content, std::string_view caption,
              Layout layout = Layout::kCharts);
  /// HTML of the caller's own making.
  void raw_html(std::string_view html);
  void facts(const std::vector<std::pair<std::string, std::string>>& facts);

  /// The whole page; it needs nothing beside it: light and dark, printable.
  std::string html(std::string_view title, std::string_view subtitle) const;
  const std::string& markdown() const { return markdown_; }

 private:
  std::string html_;
  std::string markdown_;
};

/// Adds a series' name and style to a legend once.
void add_key(std::vector<ChartSeries>& keys, const ChartSeries& series);

}  // namespace seer
