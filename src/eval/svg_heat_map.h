// Tables of numbers as coloured cells, inline SVG for a page that carries its own style sheet
// (report_style.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace seer {

struct HeatMap {
  std::string title;
  std::string row_label;
  std::string column_label;
  std::vector<std::string> rows;
  std::vector<std::string> columns;
  struct Cell {
    std::optional<double> value;  // none: an empty cell
    std::string text;             // written into the cell
    std::string hint;             // shown when pointed at
  };
  std::vector<Cell> cells;  // [rows, columns]
  double low = 0;           // palest
  double high = 1;          // strongest
};

/// An <svg> element in the size that its cells need.
std::string svg_heat_map(const HeatMap& map);

}  // namespace seer
