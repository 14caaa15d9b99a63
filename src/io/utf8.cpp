#include <cstdint>
#include <cstring>

#include "io/tokenizer.h"

namespace seer {

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t size = text.size();
  std::size_t i = 0;
  while (i < size) {
    if (size - i >= 8) {
      std::uint64_t eight;
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        i += 8;
        continue;
      }
    }
    const unsigned char lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    // The second byte's range excludes overlong forms, surrogates and what lies past U+10FFFF.
    std::size_t length = 0;
    unsigned char lowest = 0x80, highest = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
      length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      length = 3;
      if (lead == 0xe0) lowest = 0xa0;
      if (lead == 0xed) highest = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      length = 4;
      if (lead == 0xf0) lowest = 0x90;
      if (lead == 0xf4) highest = 0x8f;
    }
    if (length == 0 || size - i < length || byte(i + 1) < lowest || byte(i + 1) > highest) return i;
    for (std::size_t j = 2; j < length; ++j)
      if ((byte(i + j) & 0xc0) != 0x80) return i;
    i += length;
  }
  return std::nullopt;
}

}  // namespace seer
