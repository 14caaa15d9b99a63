#include "io/utf8.h"

#include <utf8proc.h>

#include <cstdlib>
#include <cstring>

#include "core/check.h"
#include "io/tokenizer.h"

namespace seer {
namespace {

bool is_ascii(const char* eight_bytes) {
  std::uint64_t bits;
  std::memcpy(&bits, eight_bytes, sizeof bits);
  return (bits & 0x8080808080808080u) == 0;
}

}  // namespace

Utf8Step utf8_step(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8Part::kCharacter, 1};
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
  } else {
    return {Utf8Part::kInvalid, 1};
  }
  for (std::size_t i = 1; i < length; ++i, lowest = 0x80, highest = 0xbf) {
    if (i == text.size()) return {Utf8Part::kIncomplete, i};
    if (byte(i) < lowest || byte(i) > highest) return {Utf8Part::kInvalid, i};
  }
  return {Utf8Part::kCharacter, length};
}

char32_t first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto low = [&](std::size_t i) { return static_cast<char32_t>(byte(i) & 0x3fu); };
  if (byte(0) < 0x80) return byte(0);
  if (byte(0) < 0xe0) return (byte(0) & 0x1fu) << 6 | low(1);
  if (byte(0) < 0xf0) return (byte(0) & 0x0fu) << 12 | low(1) << 6 | low(2);
  return (byte(0) & 0x07u) << 18 | low(1) << 12 | low(2) << 6 | low(3);
}

std::size_t append_utf8(std::string_view bytes, bool whole, std::string& text) {
  std::size_t i = 0;
  while (i < bytes.size()) {
    const Utf8Step step = utf8_step(bytes.substr(i));
    if (step.part == Utf8Part::kIncomplete && !whole) break;
    if (step.part == Utf8Part::kCharacter)
      text.append(bytes, i, step.length);
    else
      text += "\xef\xbf\xbd";
    i += step.length;
  }
  return i;
}

bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

std::string to_nfc(std::string_view text) {
  utf8proc_uint8_t* normal = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
      &normal, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  SEER_CHECK(size >= 0, "normalising the text failed: {}", utf8proc_errmsg(size));
  std::string result(reinterpret_cast<const char*>(normal), static_cast<std::size_t>(size));
  std::free(normal);
  return result;
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    if (text.size() - i >= 8 && is_ascii(text.data() + i)) {
      i += 8;
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(i));
    if (step.part != Utf8Part::kCharacter) return i;
    i += step.length;
  }
  return std::nullopt;
}

}  // namespace seer
