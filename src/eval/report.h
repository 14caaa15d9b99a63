// Reports from the rows that evaluations write: a web page with figures, Markdown, CSV.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace seer {

/// One row of `seer eval ppl`.
struct ReportRow {
  std::int64_t length = 0;
  std::string selector;
  std::string rule;
  double value = 0;
  double density = 0;
  double ppl = 0;
  std::int64_t documents = 0;
  double prefill_seconds = 0;
  double select_seconds = 0;
  double attention_seconds = 0;

  /// Attention with the selection that it needs.
  double sparse_attention_seconds() const { return attention_seconds + select_seconds; }
  bool is_dense() const { return selector == "dense"; }
  std::string setting() const;  ///< "dense", "gate, density 0.2", "gate, nz_ratio 0.2"
};

/// The rows of one results folder, with what they were made by.
struct ReportRun {
  std::string name;
  std::vector<std::pair<std::string, std::string>> provenance;  // in the order to be shown
  std::vector<ReportRow> rows;

  std::vector<std::int64_t> lengths() const;  ///< in rising order
  std::vector<std::string> settings() const;  ///< in the order of the rows, dense first
  const ReportRow* find(std::int64_t length, const std::string& setting) const;
  const ReportRow* dense(std::int64_t length) const { return find(length, "dense"); }
};

/// Reads FOLDER/ppl.json, or a file of such rows. Throws Error naming the file, the row and the field.
ReportRun read_report_run(const std::string& path);

/// One page that needs nothing beside it: styles and figures (SVG) are in it; light and dark; printable.
std::string report_html(const std::vector<ReportRun>& runs);
std::string report_markdown(const std::vector<ReportRun>& runs);
/// One line per row.
std::string report_csv(const std::vector<ReportRun>& runs);

}  // namespace seer
