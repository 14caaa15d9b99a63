#include "io/message.h"

#include "core/check.h"

namespace seer {

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  std::string line = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n')
      line += "\\n";
    else if (c == '\t')
      line += "\\t";
    else if (byte < 0x20 || byte >= 0x7f)
      line += fmt::format("\\x{:02x}", byte);
    else
      line += c;
  }
  line += '\'';
  if (text.size() > kLongest) line += "...";
  return line;
}

void check_json_depth(std::string_view json, const std::string& label, int limit) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      SEER_CHECK(++depth <= limit, "{}: JSON is nested deeper than {} levels at byte {}", label, limit, i);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

}  // namespace seer
