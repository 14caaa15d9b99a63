// Reads the files of a results folder; every field is checked.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/check.h"
#include "eval/report.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProvenance[] = {"version", "command", "model",   "gate", "data",         "dtype",
                                       "device",  "isa",     "threads", "seed", "chat_template"};
constexpr const char* kRulerRows = "ruler.json";
constexpr const char* kRulerSamples = "ruler.samples.jsonl";
constexpr const char* kSampleOrigin[] = {"selector", "rule", "value", "model",
                                         "gate",     "data", "dtype", "seed"};

/// A field of one row, by type; messages name file, row and field.
class RowFields {
 public:
  RowFields(const Json& row, std::string label) : row_(row), label_(std::move(label)) {
    SEER_CHECK(row.is_object(), "{}: expected an object, found {}", label_, row.type_name());
  }

  bool has(const char* name) const { return row_.contains(name); }
  const Json& get(const char* name) const {
    const auto found = row_.find(name);
    SEER_CHECK(found != row_.end(), "{}: missing field {}", label_, name);
    return *found;
  }
  double number(const char* name) const { return number_of(get(name), name); }
  double at_least_0(const char* name) const {
    const double value = number(name);
    SEER_CHECK(value >= 0, "{}: field {}: expected 0 or more, found {}", label_, name, value);
    return value;
  }
  double positive(const char* name) const {
    const double value = number(name);
    SEER_CHECK(value > 0, "{}: field {}: expected more than 0, found {}", label_, name, value);
    return value;
  }
  std::int64_t count(const char* name) const {
    const Json& value = get(name);
    SEER_CHECK(value.is_number_integer() && value.get<std::int64_t>() >= 0,
               "{}: field {}: expected a whole number of 0 or more, found {}", label_, name, value.dump());
    return value.get<std::int64_t>();
  }
  std::string text(const char* name) const {
    const Json& value = get(name);
    SEER_CHECK(value.is_string(), "{}: field {}: expected a string, found {}", label_, name,
               value.type_name());
    return value.get<std::string>();
  }
  std::int64_t list_size(const char* name) const {
    const Json& value = get(name);
    SEER_CHECK(value.is_array(), "{}: field {}: expected a list, found {}", label_, name, value.type_name());
    return static_cast<std::int64_t>(value.size());
  }
  std::vector<std::pair<std::string, std::optional<double>>> numbers_by_name(const char* name) const {
    const Json& object = get(name);
    SEER_CHECK(object.is_object(), "{}: field {}: expected an object, found {}", label_, name,
               object.type_name());
    std::vector<std::pair<std::string, std::optional<double>>> numbers;
    for (const auto& [key, value] : object.items())
      numbers.emplace_back(key, value.is_null() ? std::nullopt : std::optional(number_of(value, name)));
    return numbers;
  }
  /// [layers][heads], not empty and rectangular.
  std::vector<std::vector<double>> matrix(const char* name) const {
    const Json& rows = get(name);
    std::vector<std::vector<double>> values;
    SEER_CHECK(rows.is_array() && !rows.empty(), "{}: field {}: expected a list of lists of numbers", label_,
               name);
    for (const Json& row : rows) {
      SEER_CHECK(row.is_array() && !row.empty() && row.size() == rows[0].size(),
                 "{}: field {}: expected a list of lists of numbers, all of one length", label_, name);
      std::vector<double>& out = values.emplace_back();
      for (const Json& value : row) out.push_back(number_of(value, name));
    }
    return values;
  }

 private:
  double number_of(const Json& value, const char* name) const {
    SEER_CHECK(value.is_number(), "{}: field {}: expected a number, found {}", label_, name,
               value.type_name());
    return value.get<double>();
  }

  const Json& row_;
  std::string label_;
};

ReportSetting setting_of(const RowFields& fields) {
  return {.selector = fields.text("selector"), .rule = fields.text("rule"), .value = fields.number("value")};
}

PerplexityRow perplexity_row(const RowFields& fields) {
  return {setting_of(fields),
          static_cast<std::int64_t>(fields.positive("length")),
          fields.positive("density"),
          fields.positive("ppl"),
          fields.list_size("nll"),
          fields.positive("prefill_seconds"),
          fields.at_least_0("select_seconds"),
          fields.positive("attention_seconds")};
}

TaskRow task_row(const RowFields& fields) {
  TaskRow row{setting_of(fields)};
  row.task = fields.text("task");
  row.score = fields.at_least_0("score");
  row.density = fields.at_least_0("density");
  row.samples = fields.count("samples");
  row.failed = fields.count("failed");
  row.ttft_seconds = fields.at_least_0("ttft_seconds");
  row.select_seconds = fields.at_least_0("select_seconds");
  row.attention_seconds = fields.at_least_0("attention_seconds");
  return row;
}

InspectRow inspect_row(const RowFields& fields) {
  InspectRow row{setting_of(fields)};
  row.length = static_cast<std::int64_t>(fields.positive("length"));
  row.density = fields.positive("density");
  row.recall = fields.at_least_0("recall");
  row.oracle_recall = fields.at_least_0("oracle_recall");
  row.head_density = fields.matrix("head_density");
  row.head_recall = fields.matrix("head_recall");
  return row;
}

KernelRecord kernel_record(const RowFields& fields) {
  return {.op = fields.text("op"),
          .peer = fields.has("peer") ? fields.text("peer") : std::string(),
          .device = fields.text("device"),
          .shape = fmt::format("{} heads, {} KV heads of {}, {}", fields.count("heads"),
                               fields.count("kv_heads"), fields.count("dim"), fields.text("dtype")),
          .mask = fields.text("mask"),
          .length = static_cast<std::int64_t>(fields.positive("length")),
          .density = fields.positive("density"),
          .ms = fields.positive("ms")};
}

void add_row(const RowFields& fields, const std::string& label, ReportRun& run) {
  if (fields.has("op")) {
    // A peer that could not run leaves a record of its error; heads that do not share tiles are an
    // experiment.
    if (fields.text("op") == "error" || (fields.has("sharing") && fields.text("sharing") != "auto")) return;
    run.kernels.push_back(kernel_record(fields));
  } else if (fields.has("head_density")) {
    run.inspections.push_back(inspect_row(fields));
  } else if (fields.has("scores")) {
    TaskRow& row = run.longbench.emplace_back(task_row(fields));
    row.benchmark = fields.text("benchmark");
    row.scores = fields.numbers_by_name("scores");
    row.densities = fields.numbers_by_name("densities");
  } else if (fields.has("task")) {
    TaskRow& row = run.ruler.emplace_back(task_row(fields));
    row.length = static_cast<std::int64_t>(fields.positive("length"));
  } else if (fields.has("nll")) {
    run.perplexity.push_back(perplexity_row(fields));
  } else {
    fail(
        "{}: expected a row of seer eval, seer inspect or the attention benchmark; it has none of the fields "
        "nll, task, head_density and op",
        label);
  }
}

/// Values of later rows and files are listed beside the first ones where they differ.
void add_provenance(const Json& row, ReportRun& run) {
  for (const char* key : kProvenance) {
    const auto found = row.find(key);
    if (found == row.end() || found->is_null()) continue;
    const std::pair<std::string, std::string> fact{
        key, found->is_string() ? found->get<std::string>() : found->dump()};
    if (std::find(run.provenance.begin(), run.provenance.end(), fact) != run.provenance.end()) continue;
    const auto same_key = std::find_if(run.provenance.rbegin(), run.provenance.rend(),
                                       [&](const auto& other) { return other.first == fact.first; });
    run.provenance.insert(same_key == run.provenance.rend() ? run.provenance.end() : same_key.base(), fact);
  }
}

Json parse_rows(const std::string& file) {
  Json rows = Json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  SEER_CHECK(rows.is_array() && !rows.empty(), "{}: expected a JSON array of rows", file);
  return rows;
}

void read_rows(const std::string& file, ReportRun& run) {
  const Json json = parse_rows(file);
  for (std::size_t i = 0; i < json.size(); ++i) {
    const std::string label = fmt::format("{}: row {}", file, i + 1);
    add_row(RowFields(json[i], label), label, run);
    // Benchmark records name their device in the section's own tables.
    if (!json[i].contains("op")) add_provenance(json[i], run);
  }
}

/// Was this sample computed with the model, gate and dtype of one of the rows? The log keeps samples of
/// earlier runs as well.
bool belongs(const Json& sample, const Json& rows) {
  return std::any_of(rows.begin(), rows.end(), [&](const Json& row) {
    return std::all_of(std::begin(kSampleOrigin), std::end(kSampleOrigin), [&](const char* key) {
      if (key == std::string_view("gate") && sample.value("selector", "") != "gate") return true;
      return !sample.contains(key) || !row.contains(key) || sample[key] == row[key];
    });
  });
}

/// RULER's samples with one needle at a known depth. Of a sample that another build of the program computed
/// again the last line counts; a run that was interrupted may leave half a line.
void read_needles(const std::string& file, const Json& rows, ReportRun& run) {
  std::istringstream lines(read_file(file));
  std::map<std::string, std::size_t> known;  // index in run.needles
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line) && !lines.eof();) {
    const Json sample = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const RowFields fields(sample, fmt::format("{}: line {}", file, ++number));
    if (!fields.has("depth") || fields.number("depth") < 0 || !belongs(sample, rows)) continue;
    NeedleSample needle{setting_of(fields)};
    needle.length = static_cast<std::int64_t>(fields.positive("length"));
    needle.depth = fields.number("depth");
    needle.score = fields.at_least_0("score");
    const std::string name = fmt::format("{} {} {} {}", fields.text("task"), needle.length,
                                         fields.get("id").dump(), needle.label());
    if (const auto [place, is_new] = known.emplace(name, run.needles.size()); is_new)
      run.needles.push_back(std::move(needle));
    else
      run.needles[place->second] = std::move(needle);
  }
}

/// The folder's files that hold rows, in the order of the report.
std::vector<std::string> row_files(const std::string& folder) {
  std::vector<std::string> named, others;
  for (const char* name : {"ppl.json", kRulerRows, "longbench.json"})
    if (const fs::path file = fs::path(folder) / name; fs::exists(file)) named.push_back(file.string());
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".json") && (name.starts_with("inspect") || name.starts_with("cuda_attention")))
      others.push_back(entry.path().string());
  }
  std::sort(others.begin(), others.end());
  named.insert(named.end(), others.begin(), others.end());
  return named;
}

}  // namespace

ReportRun read_report_run(const std::string& path) {
  SEER_CHECK(fs::exists(path), "{}: no such folder or file of results", path);
  ReportRun run;
  fs::path name = fs::path(path).lexically_normal();
  if (name.filename().empty()) name = name.parent_path();
  run.name = name.filename().string();
  if (!fs::is_directory(path)) {
    read_rows(path, run);
    return run;
  }
  const std::vector<std::string> files = row_files(path);
  SEER_CHECK(!files.empty(),
             "{}: expected ppl.json, ruler.json, longbench.json, inspect*.json or cuda_attention*.json; seer "
             "eval writes its file when it has finished",
             path);
  for (const std::string& file : files) read_rows(file, run);
  if (const fs::path samples = fs::path(path) / kRulerSamples; !run.ruler.empty() && fs::exists(samples))
    read_needles(samples.string(), parse_rows((fs::path(path) / kRulerRows).string()), run);
  return run;
}

std::vector<ReportRun> read_report_runs(const std::string& path) {
  if (!fs::is_directory(path) || !row_files(path).empty()) return {read_report_run(path)};
  std::vector<std::string> folders;
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (entry.is_directory() && !row_files(entry.path().string()).empty())
      folders.push_back(entry.path().string());
  if (folders.empty()) return {read_report_run(path)};  // which says what is missing
  std::sort(folders.begin(), folders.end());
  std::vector<ReportRun> runs;
  for (const std::string& folder : folders) runs.push_back(read_report_run(folder));
  return runs;
}

}  // namespace seer
