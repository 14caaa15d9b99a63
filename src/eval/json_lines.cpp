#include "eval/json_lines.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/message.h"
#include "io/tensor_file.h"

namespace seer {

using Json = nlohmann::json;

void for_each_json_line(const std::string& path,
                        const std::function<void(std::string_view line, std::string source)>& on_line) {
  SEER_CHECK(std::filesystem::is_regular_file(path), "{}: expected a file of JSON lines, found none", path);
  const std::string contents = read_file(path);
  std::string_view rest = contents;
  bool any = false;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    on_line(line, fmt::format("{}:{}", path, number));
    any = true;
  }
  SEER_CHECK(any, "{}: expected JSON lines, found none", path);
}

Json parse_json_object(std::string_view text) {
  check_json_depth(text, "JSON");
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  SEER_CHECK(json.is_object(), "expected a JSON object, found {}",
             json.is_discarded() ? "invalid JSON" : json.type_name());
  return json;
}

const Json& json_member(const Json& object, const char* name) {
  const auto found = object.find(name);
  SEER_CHECK(found != object.end(), "expected a field {}, found none", name);
  return *found;
}

std::string string_member(const Json& object, const char* name) {
  const Json& value = json_member(object, name);
  SEER_CHECK(value.is_string(), "{}: expected a string, found {}", name, value.type_name());
  return value.get<std::string>();
}

std::vector<std::string> strings_member(const Json& object, const char* name) {
  const Json& list = json_member(object, name);
  SEER_CHECK(list.is_array(), "{}: expected an array of strings, found {}", name, list.type_name());
  std::vector<std::string> strings;
  for (const Json& value : list) {
    SEER_CHECK(value.is_string(), "{}: expected strings, found {}", name, value.type_name());
    strings.push_back(value.get<std::string>());
  }
  return strings;
}

}  // namespace seer
