#include "io/byte_alphabet.h"

#include <array>

#include "io/utf8.h"

namespace seer {
namespace {

constexpr int kCharacters = 256 + 68;  // 188 bytes stand for themselves, the other 68 for U+0100 and on

/// Byte of a character below U+0144, or -1.
constexpr std::array<int, kCharacters> byte_of_characters() {
  std::array<int, kCharacters> bytes{};
  int next = 256;
  for (int& byte : bytes) byte = -1;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    bytes[static_cast<std::size_t>(printable ? byte : next++)] = byte;
  }
  return bytes;
}

}  // namespace

std::optional<std::string> bytes_of_token(std::string_view token) {
  static constexpr std::array<int, kCharacters> kBytes = byte_of_characters();
  std::string bytes;
  while (!token.empty()) {
    const char32_t character = first_character(token);
    if (character >= kCharacters || kBytes[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[character]);
    token.remove_prefix(utf8_step(token).length);
  }
  return bytes;
}

}  // namespace seer
