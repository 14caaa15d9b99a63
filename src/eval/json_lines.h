// Samples and predictions as JSON lines: reading with what is wrong with each line.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"

namespace seer {

/// Calls `on_line(line, source)` for every line of a file that is not blank; `source` is file:line. Throws
/// Error when the file cannot be read or has no such line.
void for_each_json_line(const std::string& path,
                        const std::function<void(std::string_view line, std::string source)>& on_line);

/// Parses every line of a file. One that `parse` throws Error for becomes a record with its `defect`; every
/// record gets its `source`.
template <class Record, class Parse>
std::vector<Record> read_json_lines(const std::string& path, const Parse& parse) {
  std::vector<Record> records;
  for_each_json_line(path, [&](std::string_view line, std::string source) {
    Record record;
    try {
      record = parse(line);
    } catch (const Error& error) {
      record.defect = error.what();
    }
    record.source = std::move(source);
    records.push_back(std::move(record));
  });
  return records;
}

// The messages of the Errors below have no file and line: the caller knows them.

nlohmann::json parse_json_object(std::string_view text);
const nlohmann::json& json_member(const nlohmann::json& object, const char* name);
std::string string_member(const nlohmann::json& object, const char* name);
std::vector<std::string> strings_member(const nlohmann::json& object, const char* name);

}  // namespace seer
