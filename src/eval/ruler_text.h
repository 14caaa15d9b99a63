// Words, names and haystacks of the RULER generator.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/ruler_random.h"

namespace seer {

/// Lower-case words; none is part of another, in either list.
std::span<const std::string_view> ruler_adjectives();
std::span<const std::string_view> ruler_nouns();

std::string random_key(RulerRandom& random);     ///< "amber-canoe"
std::string random_number(RulerRandom& random);  ///< seven digits
std::string random_uuid(RulerRandom& random);    ///< 32 hexadecimal digits in five groups
std::string random_name(RulerRandom& random);    ///< a made-up name of two to four syllables

/// Text in which needles are hidden, cut into units that follow one another: sentences or lines with the
/// white space behind them.
class RulerHaystack {
 public:
  /// Made-up sentences without end.
  RulerHaystack() = default;
  /// A text, or a folder's texts, repeated where they are too short; each sample begins somewhere else.
  /// Throws Error naming the path when there is no text.
  explicit RulerHaystack(const std::string& path);

  /// `count` units for one sample; a longer haystack of the same seed begins with a shorter one.
  std::vector<std::string> units(std::uint64_t seed, std::int64_t count) const;

 private:
  std::vector<std::string> units_;  // empty: made up
};

/// Cuts text at line ends and, in lines of more than 160 bytes, after sentences; nothing is lost.
std::vector<std::string> split_units(std::string_view text);

}  // namespace seer
