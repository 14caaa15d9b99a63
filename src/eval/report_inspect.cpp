// Density and recall by layer and head, of `seer inspect`.
#include <fmt/format.h>

#include <algorithm>

#include "eval/report_grid.h"
#include "eval/report_sections.h"
#include "eval/svg_heat_map.h"

namespace seer {
namespace {

std::string grid(const std::string& title, const std::string& what,
                 const std::vector<std::vector<double>>& values, double high) {
  HeatMap map{.title = title, .row_label = "layer", .column_label = "head", .high = high};
  for (std::size_t head = 0; head < values.front().size(); ++head)
    map.columns.push_back(std::to_string(head));
  for (std::size_t layer = 0; layer < values.size(); ++layer) {
    map.rows.push_back(std::to_string(layer));
    for (std::size_t head = 0; head < values[layer].size(); ++head)
      map.cells.push_back(
          {values[layer][head], fmt::format("{:.2f}", values[layer][head]),
           fmt::format("layer {}, head {}: {} {:.4f}", layer, head, what, values[layer][head])});
  }
  return svg_heat_map(map);
}

}  // namespace

void add_head_grids(const HeadGrids& grids, ReportPage& page) {
  double highest = 0;
  for (const std::vector<double>& layer : grids.head_density)
    highest = std::max(highest, *std::max_element(layer.begin(), layer.end()));
  page.figure(
      {},
      grid(fmt::format("Density, {}", grids.label), "density", grids.head_density, highest) +
          grid(fmt::format("Recall, {}", grids.label), "recall", grids.head_recall, 1),
      fmt::format("{}: density {:.4f}, recall {:.4f}; the oracle with as many blocks in every row: {:.4f}.",
                  grids.label, grids.density, grids.recall, grids.oracle_recall),
      ReportPage::Layout::kMaps);
}

void add_inspect_section(const ReportRun& run, ReportPage& page) {
  if (run.inspections.empty()) return;
  page.heading(3, "Density and recall by layer and head");
  ReportTable table{.header = {"attention", "tokens", "density", "recall", "oracle's recall"}};
  for (const InspectRow& row : run.inspections)
    table.rows.push_back({.name = row.label(),
                          .cells = {{std::to_string(row.length)},
                                    {fmt::format("{:.4f}", row.density)},
                                    {fmt::format("{:.4f}", row.recall)},
                                    {fmt::format("{:.4f}", row.oracle_recall)}}});
  page.note(
      "One prompt. Recall is the share of attention mass inside the selected blocks, mean over tokens. The "
      "oracle selects as many blocks in every row by the largest weights of the true attention map.");
  page.table(table);
  for (const InspectRow& row : run.inspections)
    add_head_grids({.label = row.label(),
                    .density = row.density,
                    .recall = row.recall,
                    .oracle_recall = row.oracle_recall,
                    .head_density = row.head_density,
                    .head_recall = row.head_recall},
                   page);
}

}  // namespace seer
