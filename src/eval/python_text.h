// Text and numbers as Python treats them: published harnesses are written in Python, and their scores depend
// on what its str and float do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace seer {

/// The characters of valid UTF-8.
std::u32string to_utf32(std::string_view text);

/// str.lower(): one character may become two (U+0130), a sigma that ends a word becomes U+03C2.
std::u32string python_lower(std::u32string_view text);

/// str.isspace() of one character: Unicode's white space and U+001C..U+001F.
bool is_python_space(char32_t character);

/// str.split(): the words between runs of white space.
std::vector<std::u32string> python_split(std::u32string_view text);

bool is_python_word(char32_t character);   ///< \w of Python's re: letters, numbers and "_"
bool is_python_digit(char32_t character);  ///< \d of Python's re: decimal digits of any script

/// repr(float): the shortest digits that read back exactly, "0.002", "50.0", "1e-05"; "NaN" as json.dump
/// writes it.
std::string python_float(double value);

/// round(value, 2) of a Python float: the exact binary value to the nearest hundredth, halves to even.
double python_round(double value);

/// round(x, 2) of a NumPy float: value * 100 to the nearest integer, halves to even, / 100. Differs from
/// python_round() where the product is rounded to a half.
double numpy_round(double value);

}  // namespace seer
