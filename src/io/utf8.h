// UTF-8 by maximal valid or invalid parts, as the Unicode standard (section 3.9) recommends to replace them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace seer {

enum class Utf8Part {
  kCharacter,   // a whole character
  kInvalid,     // bytes that no character can start with
  kIncomplete,  // the start of a character that the text's end cuts off
};

struct Utf8Step {
  Utf8Part part;
  std::size_t length;  // bytes
};

/// What the non-empty `text` starts with.
Utf8Step utf8_step(std::string_view text);

/// The character that valid `text` starts with; its length is utf8_step's.
char32_t first_character(std::string_view text);

/// Appends `bytes` to `text`, each maximal invalid part as U+FFFD. A cut-off character at the end is left
/// alone unless `whole`; returns how many bytes were used.
std::size_t append_utf8(std::string_view bytes, bool whole, std::string& text);

/// Normal form C of valid UTF-8.
std::string to_nfc(std::string_view text);

/// Unicode's White_Space property.
bool is_white_space(char32_t character);

}  // namespace seer
