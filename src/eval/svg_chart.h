// Small line charts as inline SVG for a page that carries its own style sheet (report_style.h).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace seer {

struct ChartPoint {
  double x = 0;
  double y = 0;
  std::string text;  // shown when pointed at
};

struct ChartSeries {
  std::string name;
  /// Colour class "s0", "s1", ..., "ideal" (dashed, no markers) or "paper" (dotted, hollow markers); markers
  /// differ by series as well.
  std::string style;
  std::vector<ChartPoint> points;  // in the order in which they are joined
};

/// One axis: positions are scale(value), drawn linearly between the scaled ends.
struct ChartAxis {
  std::string label;
  double low = 0;
  double high = 1;
  std::vector<std::pair<double, std::string>> ticks;
  std::function<double(double)> scale;
};

ChartAxis linear_axis(std::string label, double low, double high);  ///< round ticks
ChartAxis log_axis(std::string label, double low,
                   double high);  ///< ticks 1, 2, 5 x 10^n, more in a short range
/// For changes in percent of either sign: linear within about 1 %, logarithmic beyond.
ChartAxis percent_change_axis(std::string label, double low, double high);

/// An <svg> element of 420 x 300 units. `title` stands above the plot and names it for screen readers.
std::string svg_chart(std::string_view title, const ChartAxis& x, const ChartAxis& y,
                      const std::vector<ChartSeries>& series);

/// A short line with the series' colour and marker, for legends.
std::string svg_legend_key(const ChartSeries& series);

/// Text with &, <, > and quotes escaped.
std::string escape_html(std::string_view text);

}  // namespace seer
