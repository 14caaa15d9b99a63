#include "eval/png_image.h"

#include <png.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "core/check.h"

namespace seer {
namespace {

std::string base64(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < count; ++j) group |= std::uint32_t{bytes[i + j]} << (16 - 8 * j);
    for (std::size_t j = 0; j < 4; ++j) text += j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

}  // namespace

std::string png_data_uri(int width, int height, std::span<const std::uint8_t> indices,
                         std::span<const PaletteColour> palette) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width);
  image.height = static_cast<png_uint_32>(height);
  image.format = PNG_FORMAT_RGBA_COLORMAP;
  image.colormap_entries = static_cast<png_uint_32>(palette.size());
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::vector<std::uint8_t> file(size);
  const bool written = png_image_write_to_memory(&image, file.data(), &size, /*convert_to_8bit=*/0,
                                                 indices.data(), width, palette.data()) != 0;
  SEER_CHECK(written, "PNG of {} x {}: {}", width, height, image.message);
  return "data:image/png;base64," + base64(std::span(file).first(size));
}

}  // namespace seer
