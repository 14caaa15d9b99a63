// The regular expressions of tokenizer files.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace seer {

/// A compiled pattern, matched as Oniguruma does in the `tokenizers` library: Unicode classes, \s is the
/// White_Space property. Constructs in which Oniguruma and PCRE2 differ (\w, \b, \h, ^, $, nested classes...)
/// are refused. Thread-safe.
class Regex {
 public:
  /// Throws Error naming `label` and the construct.
  Regex(std::string_view pattern, const std::string& label);

  /// Appends [begin, end) of every match in `text`, which must be valid UTF-8. Throws Error when matching
  /// takes more steps or memory than it may.
  void find_all(std::string_view text, std::vector<std::pair<std::size_t, std::size_t>>& matches) const;

 private:
  std::shared_ptr<const void> code_;
  std::string label_;
};

/// A pattern that matches `text` itself.
std::string escape_regex(std::string_view text);

}  // namespace seer
