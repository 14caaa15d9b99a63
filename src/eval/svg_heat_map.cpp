#include "eval/svg_heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "eval/svg_chart.h"

namespace seer {
namespace {

constexpr double kCellHeight = 24, kTop = 66, kBottom = 10, kCharacter = 6.9, kMinCellWidth = 34;
/// Above this strength the text takes the colour of the paper.
constexpr double kStrong = 0.7;

std::size_t longest(const std::vector<std::string>& names) {
  std::size_t size = 0;
  for (const std::string& name : names) size = std::max(size, name.size());
  return size;
}

}  // namespace

std::string svg_heat_map(const HeatMap& map) {
  std::size_t widest = longest(map.columns);
  for (const HeatMap::Cell& cell : map.cells) widest = std::max(widest, cell.text.size());
  const double cell_width = std::max(kMinCellWidth, static_cast<double>(widest) * kCharacter + 10);
  const double left =
      static_cast<double>(std::max(longest(map.rows), map.row_label.size())) * kCharacter + 14;
  const auto columns = static_cast<double>(map.columns.size());
  const double width =
      std::max(left + columns * cell_width,
               static_cast<double>(std::max(map.title.size(), map.column_label.size() + 10)) * 7.6) +
      8;
  const double height = kTop + static_cast<double>(map.rows.size()) * kCellHeight + kBottom;

  std::string svg;
  const auto out = std::back_inserter(svg);
  const std::string name = escape_html(map.title);
  fmt::format_to(
      out,
      R"(<svg class="heat" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" role="img" aria-label="{2}">)",
      width, height, name);
  fmt::format_to(out, R"(<text class="title" x="0" y="16">{}</text>)", name);
  fmt::format_to(out, R"(<text class="label end" x="{:.1f}" y="{:.1f}">{}</text>)", left - 8, kTop - 8,
                 escape_html(map.row_label));
  fmt::format_to(out, R"(<text class="label" x="{:.1f}" y="{:.1f}">{}</text>)", left + 4, kTop - 28,
                 escape_html(map.column_label));
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    fmt::format_to(out, R"(<text class="tick middle" x="{:.1f}" y="{:.1f}">{}</text>)",
                   left + (static_cast<double>(c) + 0.5) * cell_width, kTop - 8, escape_html(map.columns[c]));
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kTop + static_cast<double>(r) * kCellHeight;
    fmt::format_to(out, R"(<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>)", left - 8, y + 16,
                   escape_html(map.rows[r]));
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const HeatMap::Cell& cell = map.cells[r * map.columns.size() + c];
      const double x = left + static_cast<double>(c) * cell_width;
      if (!cell.value) {
        fmt::format_to(out, R"(<text class="tick middle" x="{:.1f}" y="{:.1f}">-</text>)", x + cell_width / 2,
                       y + 16);
        continue;
      }
      const double strength = std::clamp((*cell.value - map.low) / (map.high - map.low), 0.0, 1.0);
      fmt::format_to(
          out,
          R"(<g><title>{}</title><rect class="cell" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>)"
          R"(<text class="middle{}" x="{:.1f}" y="{:.1f}">{}</text></g>)",
          escape_html(cell.hint), x + 1, y + 1, cell_width - 2, kCellHeight - 2, strength,
          strength > kStrong ? " over" : "", x + cell_width / 2, y + 16, escape_html(cell.text));
    }
  }
  return svg + "</svg>";
}

}  // namespace seer
