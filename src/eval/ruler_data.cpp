#include "eval/ruler_data.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/check.h"
#include "eval/json_lines.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::json;

std::int64_t integer_or(const Json& json, const char* name, std::int64_t otherwise) {
  const auto found = json.find(name);
  if (found == json.end()) return otherwise;
  SEER_CHECK(found->is_number_integer(), "{}: expected an integer, found {}", name,
             found->is_number() ? found->dump() : found->type_name());
  return found->get<std::int64_t>();
}

RulerSample parse_sample(std::string_view line) {
  const Json json = parse_json_object(line);
  RulerSample sample;
  json_member(json, "index");
  sample.index = integer_or(json, "index", 0);
  sample.input = string_member(json, "input");
  sample.outputs = strings_member(json, "outputs");
  SEER_CHECK(!sample.outputs.empty(), "outputs: expected at least one, found none");
  sample.length = integer_or(json, "length", -1);
  sample.truncation = integer_or(json, "truncation", -1);
  if (const auto others = json.find("others"); others != json.end()) sample.others = others->dump();
  return sample;
}

/// The task's file in a folder, or an empty path.
fs::path task_file(const fs::path& folder, const RulerTask& task) {
  for (const fs::path& inner : {folder, folder / "data"})
    for (const fs::path& path :
         {inner / task.name / "validation.jsonl", inner / (std::string(task.name) + ".jsonl")})
      if (fs::is_regular_file(path)) return path;
  return {};
}

/// Subfolders that are named by a number of tokens, in rising order.
std::vector<std::pair<std::int64_t, fs::path>> length_folders(const std::string& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> folders;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    std::int64_t length = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), length);
    if (entry.is_directory() && error == std::errc() && end == name.data() + name.size() && length > 0)
      folders.emplace_back(length, entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

void add_files(const fs::path& folder, std::int64_t length, std::span<const RulerTask* const> tasks,
               std::vector<RulerFile>& files) {
  for (const RulerTask& task : ruler_tasks()) {
    const bool asked = std::find(tasks.begin(), tasks.end(), &task) != tasks.end();
    if (!asked && !tasks.empty()) continue;
    const fs::path path = task_file(folder, task);
    SEER_CHECK(!asked || !path.empty(), "{}: expected {}/validation.jsonl or {}.jsonl, found neither",
               folder.string(), task.name, task.name);
    if (!path.empty()) files.push_back({&task, length, path.string()});
  }
}

}  // namespace

std::vector<RulerFile> find_ruler_files(const std::string& folder, std::span<const RulerTask* const> tasks,
                                        std::span<const std::int64_t> lengths) {
  SEER_CHECK(fs::is_directory(folder), "{}: expected a folder of RULER files, found none", folder);
  std::vector<RulerFile> files;
  const auto folders = length_folders(folder);
  for (const std::int64_t length : lengths)
    SEER_CHECK(std::any_of(folders.begin(), folders.end(), [&](const auto& f) { return f.first == length; }),
               "{}: expected a subfolder {} with the samples of that length, found none", folder, length);
  for (const auto& [length, path] : folders)
    if (lengths.empty() || std::find(lengths.begin(), lengths.end(), length) != lengths.end())
      add_files(path, length, tasks, files);
  if (folders.empty()) add_files(folder, 0, tasks, files);
  SEER_CHECK(!files.empty(), "{}: expected TASK/validation.jsonl or TASK.jsonl of RULER's tasks, found none",
             folder);
  return files;
}

std::vector<RulerSample> read_ruler_samples(const RulerFile& file) {
  auto samples = read_json_lines<RulerSample>(file.path, parse_sample);
  std::set<std::int64_t> seen;
  for (RulerSample& sample : samples) {
    sample.task = file.task;
    if (sample.defect.empty() && !seen.insert(sample.index).second)
      sample.defect = fmt::format("index: {} stands in an earlier line", sample.index);
  }
  return samples;
}

}  // namespace seer
