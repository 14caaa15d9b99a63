// Small images for pages that carry everything in them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace seer {

struct PaletteColour {
  std::uint8_t red = 0, green = 0, blue = 0;
  std::uint8_t alpha = 255;
};

/// A PNG of `width` x `height` palette indices, row by row, as a data URI for <img src>. At most 256 colours;
/// every index must have one.
std::string png_data_uri(int width, int height, std::span<const std::uint8_t> indices,
                         std::span<const PaletteColour> palette);

}  // namespace seer
