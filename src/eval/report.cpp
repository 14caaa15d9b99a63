#include "eval/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProvenance[] = {"version", "command", "model", "gate",    "data",
                                       "dtype",   "device",  "isa",   "threads", "seed"};

/// A field of one row, by type; messages name file, row and field.
class RowFields {
 public:
  RowFields(const Json& row, const std::string& path, std::size_t index)
      : row_(row), label_(fmt::format("{}: row {}", path, index + 1)) {
    SEER_CHECK(row.is_object(), "{}: expected an object, found {}", label_, row.type_name());
  }

  double number(const char* name) const {
    const Json& value = get(name);
    SEER_CHECK(value.is_number(), "{}: field {}: expected a number, found {}", label_, name,
               value.type_name());
    return value.get<double>();
  }
  double positive(const char* name) const {
    const double value = number(name);
    SEER_CHECK(value > 0, "{}: field {}: expected more than 0, found {}", label_, name, value);
    return value;
  }
  std::string text(const char* name) const {
    const Json& value = get(name);
    SEER_CHECK(value.is_string(), "{}: field {}: expected a string, found {}", label_, name,
               value.type_name());
    return value.get<std::string>();
  }
  const Json& get(const char* name) const {
    const auto found = row_.find(name);
    SEER_CHECK(found != row_.end(), "{}: missing field {}", label_, name);
    return *found;
  }

 private:
  const Json& row_;
  std::string label_;
};

}  // namespace

std::string ReportRow::setting() const {
  if (is_dense()) return "dense";
  const std::string_view amount = rule == "adaptive" ? "density"
                                  : rule == "top_p"  ? "top-p"
                                                     : std::string_view(rule);
  return fmt::format("{}, {} {:.4g}", selector, amount, value);
}

std::vector<std::int64_t> ReportRun::lengths() const {
  std::vector<std::int64_t> lengths;
  for (const ReportRow& row : rows) lengths.push_back(row.length);
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

std::vector<std::string> ReportRun::settings() const {
  std::vector<std::string> settings;
  for (const ReportRow& row : rows)
    if (std::find(settings.begin(), settings.end(), row.setting()) == settings.end())
      settings.push_back(row.setting());
  std::stable_partition(settings.begin(), settings.end(),
                        [](const std::string& setting) { return setting == "dense"; });
  return settings;
}

const ReportRow* ReportRun::find(std::int64_t length, const std::string& setting) const {
  for (const ReportRow& row : rows)
    if (row.length == length && row.setting() == setting) return &row;
  return nullptr;
}

ReportRun read_report_run(const std::string& path) {
  const std::string file = fs::is_directory(path) ? (fs::path(path) / "ppl.json").string() : path;
  SEER_CHECK(fs::exists(file), "{}: no such file; seer eval ppl --results writes it when it has finished",
             file);
  const Json json = Json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  SEER_CHECK(json.is_array() && !json.empty(), "{}: expected a JSON array of rows", file);
  ReportRun run;
  fs::path name = fs::path(path).lexically_normal();
  if (name.filename().empty()) name = name.parent_path();
  run.name = name.filename().string();
  for (std::size_t i = 0; i < json.size(); ++i) {
    const RowFields fields(json[i], file, i);
    SEER_CHECK(fields.get("nll").is_array(), "{}: row {}: field nll: expected a list", file, i + 1);
    run.rows.push_back({.length = static_cast<std::int64_t>(fields.positive("length")),
                        .selector = fields.text("selector"),
                        .rule = fields.text("rule"),
                        .value = fields.number("value"),
                        .density = fields.positive("density"),
                        .ppl = fields.positive("ppl"),
                        .documents = static_cast<std::int64_t>(fields.get("nll").size()),
                        .prefill_seconds = fields.positive("prefill_seconds"),
                        .select_seconds = fields.number("select_seconds"),
                        .attention_seconds = fields.positive("attention_seconds")});
  }
  for (const char* key : kProvenance) {
    const auto found = json[0].find(key);
    if (found == json[0].end() || found->is_null()) continue;
    run.provenance.emplace_back(key, found->is_string() ? found->get<std::string>() : found->dump());
  }
  return run;
}

std::string report_markdown(const std::vector<ReportRun>& runs) {
  std::string text;
  const auto out = std::back_inserter(text);
  const auto table = [&](const ReportRun& run, const auto& cell) {
    fmt::format_to(out, "| attention |");
    for (const std::int64_t length : run.lengths()) fmt::format_to(out, " {} tokens |", length);
    fmt::format_to(out, "\n|---|");
    for (std::size_t i = 0; i < run.lengths().size(); ++i) fmt::format_to(out, "---|");
    fmt::format_to(out, "\n");
    for (const std::string& setting : run.settings()) {
      fmt::format_to(out, "| {} |", setting);
      for (const std::int64_t length : run.lengths()) {
        const ReportRow* row = run.find(length, setting);
        fmt::format_to(out, " {} |", row != nullptr ? cell(*row, run.dense(length)) : "-");
      }
      fmt::format_to(out, "\n");
    }
  };
  for (const ReportRun& run : runs) {
    fmt::format_to(out, "{}## {}\n\nPerplexity (loss over dense @ measured density):\n\n",
                   text.empty() ? "" : "\n", run.name);
    table(run, [](const ReportRow& row, const ReportRow* dense) {
      if (row.is_dense() || dense == nullptr) return fmt::format("{:.4f} @ {:.4f}", row.ppl, row.density);
      return fmt::format("{:.4f} ({:+.2f} % @ {:.4f})", row.ppl, 100 * (row.ppl / dense->ppl - 1),
                         row.density);
    });
    fmt::format_to(
        out, "\nPrefill, seconds a document (speed-up; attention with selection, seconds, speed-up):\n\n");
    table(run, [](const ReportRow& row, const ReportRow* dense) {
      if (row.is_dense() || dense == nullptr)
        return fmt::format("{:.3f} ({:.3f})", row.prefill_seconds, row.sparse_attention_seconds());
      return fmt::format("{:.3f} ({:.2f} x; {:.3f}, {:.2f} x)", row.prefill_seconds,
                         dense->prefill_seconds / row.prefill_seconds, row.sparse_attention_seconds(),
                         dense->attention_seconds / row.sparse_attention_seconds());
    });
    fmt::format_to(out, "\n");
    for (const auto& [key, value] : run.provenance) fmt::format_to(out, "- {}: `{}`\n", key, value);
  }
  return text;
}

std::string report_csv(const std::vector<ReportRun>& runs) {
  std::string text =
      "run,length,selector,rule,value,density,ppl,documents,prefill_seconds,select_seconds,attention_"
      "seconds\n";
  for (const ReportRun& run : runs) {
    std::string name = run.name;
    for (std::size_t i = 0; (i = name.find('"', i)) != std::string::npos; i += 2) name.insert(i, 1, '"');
    for (const ReportRow& row : run.rows)
      fmt::format_to(std::back_inserter(text), "\"{}\",{},{},{},{},{},{},{},{},{},{}\n", name, row.length,
                     row.selector, row.rule, row.value, row.density, row.ppl, row.documents,
                     row.prefill_seconds, row.select_seconds, row.attention_seconds);
  }
  return text;
}

}  // namespace seer
