// The web page of an inspection.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "eval/inspect.h"
#include "eval/png_image.h"
#include "eval/report_page.h"
#include "eval/report_sections.h"
#include "eval/setting_label.h"

namespace seer {
namespace {

/// Shares of a row from 10^-kDecades (darkest) to 1 (brightest), logarithmic.
constexpr double kDecades = 4;
constexpr int kLevels = 255;

/// From dark blue over grey to yellow, rising evenly in lightness, so that it reads the same to the
/// colour-blind and in grey print. Index 0, right of the diagonal, is transparent.
std::vector<PaletteColour> attention_palette() {
  constexpr std::array<std::array<double, 3>, 5> kStops{
      {{0, 32, 81}, {60, 77, 110}, {127, 124, 117}, {187, 173, 108}, {253, 234, 69}}};
  std::vector<PaletteColour> palette{{0, 0, 0, 0}};
  for (int level = 0; level < kLevels; ++level) {
    const double position = static_cast<double>(level) / (kLevels - 1) * (kStops.size() - 1);
    const auto stop = std::min(static_cast<std::size_t>(position), kStops.size() - 2);
    const auto mixed = [&](std::size_t channel) {
      return static_cast<std::uint8_t>(std::lround(
          std::lerp(kStops[stop][channel], kStops[stop + 1][channel], position - static_cast<double>(stop))));
    };
    palette.push_back({mixed(0), mixed(1), mixed(2)});
  }
  return palette;
}

/// Is a block selected, and is it among the row's largest, as many as the row selected?
enum MaskColour : std::uint8_t { kOutside, kNeither, kBoth, kSelectedOnly, kMissed };
constexpr std::array<PaletteColour, 5> kMaskPalette{
    {{0, 0, 0, 0}, {128, 128, 128, 50}, {0, 114, 178}, {130, 196, 235}, {213, 94, 0}}};

std::string css_colour(const PaletteColour& colour) {
  return fmt::format("rgba({}, {}, {}, {:.2f})", colour.red, colour.green, colour.blue, colour.alpha / 255.0);
}

std::string attention_image(const AttentionMap& map, std::int64_t blocks) {
  static const std::vector<PaletteColour> palette = attention_palette();
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(blocks * blocks), 0);
  for (std::int64_t i = 0; i < blocks; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      const auto at = static_cast<std::size_t>(i * blocks + j);
      const double share = std::max<double>(map.values[at], 1e-30);
      const double level = std::clamp(1 + std::log10(share) / kDecades, 0.0, 1.0);
      pixels[at] = static_cast<std::uint8_t>(1 + std::lround(level * (kLevels - 1)));
    }
  }
  return png_data_uri(static_cast<int>(blocks), static_cast<int>(blocks), pixels, palette);
}

std::string mask_image(const AttentionMap& map, const BlockMask& mask, std::int64_t blocks) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(blocks * blocks), kOutside);
  std::vector<float> row;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const float* values = map.values.data() + i * blocks;
    row.assign(values, values + i + 1);
    const std::int64_t count = mask.count(map.head, i);
    std::nth_element(row.begin(), row.begin() + (count - 1), row.end(), std::greater<>());
    const float smallest = row[static_cast<std::size_t>(count - 1)];
    for (std::int64_t j = 0; j <= i; ++j) {
      const bool selected = mask.test(map.head, i, j), large = values[j] >= smallest;
      pixels[static_cast<std::size_t>(i * blocks + j)] =
          selected ? (large ? kBoth : kSelectedOnly) : (large ? kMissed : kNeither);
    }
  }
  return png_data_uri(static_cast<int>(blocks), static_cast<int>(blocks), pixels, kMaskPalette);
}

std::string label_of(const SettingInspection& setting) {
  return setting_label(name_of(setting.setting.selector), setting.setting.rule_name(),
                       setting.setting.sparsity.value);
}

std::string map_legend() {
  std::string stops;
  const std::vector<PaletteColour> palette = attention_palette();
  for (std::size_t i = 1; i < palette.size(); i += 31)
    stops += (stops.empty() ? "" : ", ") + css_colour(palette[i]);
  std::string html = fmt::format(
      "<div class=\"legend\"><span>share of the row: 0.01 %<i class=\"ramp\" style=\"background: "
      "linear-gradient(to right, {})\"></i>100 %</span>",
      stops);
  for (const auto& [colour, text] :
       {std::pair{kBoth, "selected, and among the row's largest"},
        std::pair{kSelectedOnly, "selected in place of a larger one"},
        std::pair{kMissed, "missed: among the row's largest"}, std::pair{kNeither, "left out"}})
    html += fmt::format("<span><i class=\"swatch\" style=\"background: {}\"></i>{}</span>",
                        css_colour(kMaskPalette[colour]), text);
  return html + "</div>\n";
}

std::string map_figure(const Inspection& inspection, const AttentionMap& map) {
  std::string images =
      fmt::format("<img src=\"{}\" width=\"136\" height=\"136\" alt=\"true attention of layer {} head {}\"/>",
                  attention_image(map, inspection.blocks), map.layer, map.head);
  std::string caption = fmt::format("<b>head {}</b>", map.head);
  for (const SettingInspection& setting : inspection.settings) {
    const HeadInspection& head = setting.head(map.layer, map.head);
    images +=
        fmt::format("<img src=\"{}\" width=\"136\" height=\"136\" alt=\"mask of {}, layer {} head {}\"/>",
                    mask_image(map, setting.masks[static_cast<std::size_t>(map.layer)], inspection.blocks),
                    escape_html(label_of(setting)), map.layer, map.head);
    caption += fmt::format("<br/>{}: density {:.3f}, recall {:.3f} (oracle {:.3f})",
                           escape_html(label_of(setting)), head.density(), head.recall, head.oracle_recall);
  }
  return fmt::format("<figure><div class=\"pair\">{}</div><figcaption>{}</figcaption></figure>\n", images,
                     caption);
}

void add_maps(const Inspection& inspection, ReportPage& page) {
  page.heading(2, "Attention maps and masks");
  page.note(
      "Left: the true attention map, one pixel a block of 64 x 64 tokens, queries downwards and keys to the "
      "right; a pixel is the block's largest attention weight as a share of its row's sum of these. Beside "
      "it, for each setting in the order of the caption, the blocks that it selected. Recall is the share of "
      "attention mass inside them, mean over the tokens; in brackets that of the oracle: as many blocks in "
      "every row, those of the largest weights.");
  page.raw_html(map_legend());
  const auto images = static_cast<int>(inspection.settings.size()) + 1;
  int layer = -1;
  for (const AttentionMap& map : inspection.maps) {
    if (map.layer != layer) {
      if (layer >= 0) page.raw_html("</div>\n");
      layer = map.layer;
      page.heading(3, fmt::format("Layer {}", layer));
      page.raw_html(fmt::format("<div class=\"attention\" style=\"--map: {}px\">\n", images * 142));
    }
    page.raw_html(map_figure(inspection, map));
  }
  if (layer >= 0) page.raw_html("</div>\n");
}

}  // namespace

std::string inspect_html(const Inspection& inspection,
                         const std::vector<std::pair<std::string, std::string>>& facts) {
  ReportPage page;
  page.heading(2, "Density and recall by layer and head");
  for (const SettingInspection& setting : inspection.settings) {
    HeadGrids grids{.label = label_of(setting),
                    .density = setting.density(),
                    .recall = setting.recall(),
                    .oracle_recall = setting.oracle_recall()};
    for (int layer = 0; layer < setting.num_layers(); ++layer) {
      std::vector<double>&density = grids.head_density.emplace_back(),
      &recall = grids.head_recall.emplace_back();
      for (int head = 0; head < setting.num_heads; ++head) {
        density.push_back(setting.head(layer, head).density());
        recall.push_back(setting.head(layer, head).recall);
      }
    }
    add_head_grids(grids, page);
  }
  add_maps(inspection, page);
  page.heading(2, "How this was measured");
  page.facts(facts);
  return page.html("What the selector keeps of attention",
                   fmt::format("One prompt of {} tokens, {} layers of {} heads.", inspection.tokens,
                               inspection.num_layers, inspection.num_heads));
}

}  // namespace seer
