#include "eval/python_text.h"

#include <fmt/core.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "io/utf8.h"

namespace seer {
namespace {

constexpr char32_t kCapitalSigma = 0x3a3, kSmallSigma = 0x3c3, kFinalSigma = 0x3c2;
constexpr char32_t kCapitalDottedI = 0x130, kCombiningDotAbove = 0x307;

utf8proc_category_t category_of(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(character));
}

/// Unicode's Case_Ignorable: marks, formats, modifiers, and punctuation inside words.
bool is_case_ignorable(char32_t character) {
  constexpr std::array<char32_t, 17> kInsideWords{0x27,   0x2e,   0x3a,   0xb7,   0x387,  0x55f,
                                                  0x5f4,  0x2018, 0x2019, 0x2024, 0x2027, 0xfe13,
                                                  0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};
  switch (category_of(character)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::binary_search(kInsideWords.begin(), kInsideWords.end(), character);
  }
}

/// Unicode's Cased, of characters that are not case-ignorable.
bool is_cased(char32_t character) {
  // Feminine and masculine ordinals, Roman numerals, circled, squared letters: cased without being letters.
  constexpr std::array<std::pair<char32_t, char32_t>, 7> kOthers{{{0xaa, 0xaa},
                                                                  {0xba, 0xba},
                                                                  {0x2160, 0x217f},
                                                                  {0x24b6, 0x24e9},
                                                                  {0x1f130, 0x1f149},
                                                                  {0x1f150, 0x1f169},
                                                                  {0x1f170, 0x1f189}}};
  switch (category_of(character)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
      return true;
    default:
      return std::any_of(kOthers.begin(), kOthers.end(), [&](const auto& range) {
        return character >= range.first && character <= range.second;
      });
  }
}

/// Whether a capital sigma at `at` ends a word: a cased character before it and none after it, case-ignorable
/// ones aside.
bool is_final_sigma(std::u32string_view text, std::size_t at) {
  std::size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  std::size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

}  // namespace

std::u32string to_utf32(std::string_view text) {
  std::u32string characters;
  characters.reserve(text.size());
  while (!text.empty()) {
    characters += first_character(text);
    text.remove_prefix(utf8_step(text).length);
  }
  return characters;
}

std::u32string python_lower(std::u32string_view text) {
  std::u32string lower;
  lower.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kCapitalSigma)
      lower += is_final_sigma(text, i) ? kFinalSigma : kSmallSigma;
    else if (text[i] == kCapitalDottedI)
      lower.append({U'i', kCombiningDotAbove});
    else
      lower += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(text[i])));
  }
  return lower;
}

bool is_python_space(char32_t character) {
  return is_white_space(character) || (character >= 0x1c && character <= 0x1f);
}

std::vector<std::u32string> python_split(std::u32string_view text) {
  std::vector<std::u32string> words;
  for (auto at = text.begin(); at != text.end();) {
    const auto begin = std::find_if_not(at, text.end(), is_python_space);
    at = std::find_if(begin, text.end(), is_python_space);
    if (begin != at) words.emplace_back(begin, at);
  }
  return words;
}

bool is_python_word(char32_t character) {
  const utf8proc_category_t category = category_of(character);
  return character == U'_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
         (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

bool is_python_digit(char32_t character) { return category_of(character) == UTF8PROC_CATEGORY_ND; }

std::string python_float(double value) {
  if (std::isnan(value)) return "NaN";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

double python_round(double value) { return std::strtod(fmt::format("{:.2f}", value).c_str(), nullptr); }

double numpy_round(double value) { return std::nearbyint(value * 100.0) / 100.0; }

}  // namespace seer
