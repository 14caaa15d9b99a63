#include "io/documents.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/check.h"
#include "io/message.h"
#include "io/tensor_file.h"
#include "io/tokenizer.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::json;

Document parse_line(std::string_view line, const std::string& name) {
  check_json_depth(line, name);
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  SEER_CHECK(json.is_object(), "{}: expected a JSON object, found {}", name,
             json.is_discarded() ? "invalid JSON" : json.type_name());
  Document document;
  document.name = name;
  if (const auto ids = json.find("input_ids"); ids != json.end()) {
    SEER_CHECK(ids->is_array() && !ids->empty(), "{}: input_ids: expected a non-empty array of integers",
               name);
    for (const Json& id : *ids) {
      SEER_CHECK(
          id.is_number_unsigned() && id.get<std::uint64_t>() <= std::numeric_limits<std::int32_t>::max(),
          "{}: input_ids: expected non-negative 32-bit integers, found {}", name,
          id.is_number() ? id.dump() : id.type_name());
      document.input_ids.push_back(id.get<std::int32_t>());
    }
    return document;
  }
  const auto text = json.find("text");
  SEER_CHECK(text != json.end(), "{}: expected a field text or input_ids, found neither", name);
  SEER_CHECK(text->is_string(), "{}: text: expected a string, found {}", name, text->type_name());
  document.text = text->get<std::string>();
  return document;
}

void read_jsonl(const std::string& path, std::vector<Document>& documents) {
  const std::string contents = read_file(path);
  std::string_view rest = contents;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    documents.push_back(parse_line(line, fmt::format("{}:{}", path, number)));
  }
}

/// Why a file's contents are no text, or nothing.
std::string why_not_text(std::string_view contents) {
  if (const auto bad = find_invalid_utf8(contents)) return fmt::format("invalid UTF-8 at byte {}", *bad);
  if (const auto nul = contents.find('\0'); nul != std::string_view::npos)
    return fmt::format("a zero byte at {}", nul);
  return "";
}

void read_one(const fs::path& path, bool skip_bad, std::vector<Document>& documents) {
  if (path.extension() == ".jsonl") {
    read_jsonl(path.string(), documents);
    return;
  }
  Document document;
  document.name = path.string();
  document.text = read_file(document.name);
  const std::string reason = why_not_text(document.text);
  if (!reason.empty() && skip_bad) return;
  SEER_CHECK(reason.empty(), "{}: expected a text file, found {}", document.name, reason);
  documents.push_back(std::move(document));
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

/// All regular files below a folder, sorted by path.
std::vector<fs::path> files_below(const fs::path& folder, const std::vector<std::string>& extensions,
                                  bool skip_hidden) {
  std::vector<fs::path> files;
  for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator();
       ++entry) {
    if (is_hidden(entry->path())) {
      SEER_CHECK(skip_hidden, "{}: expected no hidden files in a folder of texts", entry->path().string());
      if (entry->is_directory()) entry.disable_recursion_pending();
      continue;
    }
    const std::string extension = entry->path().extension().string();
    const auto wanted = [&](const std::string& e) { return e == extension || '.' + e == extension; };
    if (!extensions.empty() && std::none_of(extensions.begin(), extensions.end(), wanted)) continue;
    if (entry->is_regular_file()) files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::vector<Document> read_documents(const std::string& path, const std::vector<std::string>& extensions,
                                     bool skip_bad) {
  std::vector<Document> documents;
  try {
    if (fs::is_directory(path)) {
      for (const fs::path& file : files_below(path, extensions, /*skip_hidden=*/skip_bad))
        read_one(file, skip_bad, documents);
    } else {
      read_one(path, /*skip_bad=*/false, documents);
    }
  } catch (const fs::filesystem_error& error) {
    fail("{}: cannot read: {}", error.path1().string(), error.code().message());
  }
  SEER_CHECK(!documents.empty(), "{}: expected at least one document, found none", path);
  return documents;
}

}  // namespace seer
