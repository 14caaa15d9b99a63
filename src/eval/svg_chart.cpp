#include "eval/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>

namespace seer {
namespace {

constexpr double kWidth = 420, kHeight = 300;
constexpr double kLeft = 72, kRight = 14, kTop = 34, kBottom = 46;

/// A marker of about 8 units around (x, y); the shape tells series apart without colour.
std::string marker(std::string_view style, double x, double y) {
  if (style == "paper")
    return fmt::format(R"(<path class="mark paper" d="M{:.1f} {:.1f}h7v7h-7z"/>)", x - 3.5, y - 3.5);
  const int shape = style.size() == 2 ? style[1] - '0' : 0;
  switch (shape % 4) {
    case 1:
      return fmt::format(R"(<rect class="mark {0}" x="{1:.1f}" y="{2:.1f}" width="7" height="7"/>)", style,
                         x - 3.5, y - 3.5);
    case 2:
      return fmt::format(R"(<path class="mark {0}" d="M{1:.1f} {2:.1f}l4.5 8h-9z"/>)", style, x, y - 5);
    case 3:
      return fmt::format(R"(<path class="mark {0}" d="M{1:.1f} {2:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>)",
                         style, x, y - 4.5);
    default:
      return fmt::format(R"(<circle class="mark {0}" cx="{1:.1f}" cy="{2:.1f}" r="4"/>)", style, x, y);
  }
}

/// The largest of 1, 2, 2.5, 5 x 10^n that cuts `span` into at least four steps.
double round_step(double span) {
  const double power = std::pow(10.0, std::floor(std::log10(span / 4)));
  for (const double factor : {10.0, 5.0, 2.5, 2.0})
    if (factor * power <= span / 4) return factor * power;
  return power;
}

}  // namespace

ChartAxis linear_axis(std::string label, double low, double high) {
  ChartAxis axis{std::move(label), low, high, {}, [](double value) { return value; }};
  const double step = round_step(high - low);
  for (auto i = std::llround(std::ceil(low / step - 1e-9)); static_cast<double>(i) * step <= high + 1e-9; ++i)
    axis.ticks.emplace_back(static_cast<double>(i) * step,
                            fmt::format("{:.4g}", static_cast<double>(i) * step));
  return axis;
}

ChartAxis log_axis(std::string label, double low, double high) {
  ChartAxis axis{std::move(label), low, high, {}, [](double value) { return std::log(value); }};
  const auto add_ticks = [&](std::initializer_list<double> factors) {
    axis.ticks.clear();
    for (int power = static_cast<int>(std::floor(std::log10(low))); std::pow(10.0, power) <= high; ++power) {
      for (const double factor : factors) {
        const double value = factor * std::pow(10.0, power);
        if (value >= low * 0.999 && value <= high * 1.001)
          axis.ticks.emplace_back(value, fmt::format("{:.4g}", value));
      }
    }
  };
  add_ticks({1, 2, 5});
  if (axis.ticks.size() < 3) add_ticks({1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7});
  return axis;
}

ChartAxis percent_change_axis(std::string label, double low, double high) {
  ChartAxis axis{std::move(label), low, high, {}, [](double value) { return std::asinh(value); }};
  for (const double value : {-30., -10., -3., -1., 0., 1., 3., 10., 30., 100., 300., 1000., 3000., 10000.})
    if (value >= low - 1e-9 && value <= high + 1e-9)
      axis.ticks.emplace_back(value, value == 0 ? "0 %" : fmt::format("{:+g} %", value));
  return axis;
}

std::string svg_chart(std::string_view title, const ChartAxis& x, const ChartAxis& y,
                      const std::vector<ChartSeries>& series) {
  const auto place = [](const ChartAxis& axis, double value, double from, double to) {
    const double low = axis.scale(axis.low), high = axis.scale(axis.high);
    return from + (axis.scale(value) - low) / (high - low) * (to - from);
  };
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  const auto at_x = [&](double value) { return place(x, value, kLeft, right); };
  const auto at_y = [&](double value) { return place(y, value, bottom, kTop); };

  std::string svg;
  const auto out = std::back_inserter(svg);
  const std::string name = escape_html(title);
  fmt::format_to(out, R"(<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">)", kWidth, kHeight, name);
  fmt::format_to(out, R"(<text class="title" x="{:g}" y="18">{}</text>)", kLeft, name);
  for (const auto& [value, text] : y.ticks)
    fmt::format_to(out,
                   R"(<path class="grid" d="M{0:g} {1:.1f}H{2:g}"/>)"
                   R"(<text class="tick end" x="{3:g}" y="{4:.1f}">{5}</text>)",
                   kLeft, at_y(value), right, kLeft - 6, at_y(value) + 4, text);
  for (const auto& [value, text] : x.ticks)
    fmt::format_to(out,
                   R"(<path class="grid" d="M{0:.1f} {1:g}V{2:g}"/>)"
                   R"(<text class="tick middle" x="{0:.1f}" y="{3:g}">{4}</text>)",
                   at_x(value), kTop, bottom, bottom + 16, text);
  fmt::format_to(out, R"(<path class="axis" d="M{0:g} {1:g}V{2:g}H{3:g}"/>)", kLeft, kTop, bottom, right);
  fmt::format_to(out, R"(<text class="label middle" x="{:g}" y="{:g}">{}</text>)", (kLeft + right) / 2,
                 kHeight - 8, escape_html(x.label));
  fmt::format_to(out,
                 R"svg(<text class="label middle" transform="translate(14 {:g}) rotate(-90)">{}</text>)svg",
                 (kTop + bottom) / 2, escape_html(y.label));
  for (const ChartSeries& line : series) {
    std::string points;
    for (const ChartPoint& point : line.points)
      fmt::format_to(std::back_inserter(points), "{}{:.1f},{:.1f}", points.empty() ? "" : " ", at_x(point.x),
                     at_y(point.y));
    fmt::format_to(out, R"(<polyline class="line {}" points="{}"/>)", line.style, points);
    if (line.style == "ideal") continue;
    for (const ChartPoint& point : line.points)
      fmt::format_to(out, "<g><title>{}</title>{}</g>", escape_html(point.text),
                     marker(line.style, at_x(point.x), at_y(point.y)));
  }
  return svg + "</svg>";
}

std::string svg_legend_key(const ChartSeries& series) {
  return fmt::format(
      R"(<svg class="key" viewBox="0 0 30 12" aria-hidden="true"><path class="line {}" d="M1 6H29"/>{}</svg>)",
      series.style, series.style == "ideal" ? std::string() : marker(series.style, 15, 6));
}

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace seer
