// Reports from the rows that evaluations write: a web page with figures, Markdown, CSV (docs/report.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace seer {

/// What a row was computed with.
struct ReportSetting {
  std::string selector;
  std::string rule;
  double value = 0;

  bool is_dense() const { return selector == "dense"; }
  std::string label() const;  ///< "dense", "gate, density 0.2", "gate, nz_ratio 0.2"
};

/// One row of `seer eval ppl`; seconds are means over documents.
struct PerplexityRow : ReportSetting {
  std::int64_t length = 0;
  double density = 0;
  double ppl = 0;
  std::int64_t documents = 0;
  double prefill_seconds = 0;
  double select_seconds = 0;
  double attention_seconds = 0;

  /// Attention with the selection that it needs.
  double sparse_attention_seconds() const { return attention_seconds + select_seconds; }
};

/// One row of `seer eval ruler` or `seer eval longbench`.
struct TaskRow : ReportSetting {
  std::string task;
  std::int64_t length = 0;  // RULER only
  double score = 0;         // 0 to 100
  std::string benchmark;    // LongBench only: "LongBench" or "LongBench-E"
  /// LongBench only: scores and densities by the samples' length; none where a bucket is empty.
  std::vector<std::pair<std::string, std::optional<double>>> scores, densities;
  double density = 0;
  std::int64_t samples = 0;
  std::int64_t failed = 0;
  double ttft_seconds = 0;
  double select_seconds = 0;
  double attention_seconds = 0;
};

/// One RULER sample whose needle lies at a known depth.
struct NeedleSample : ReportSetting {
  std::int64_t length = 0;
  double depth = 0;  // percent of the context before the needle
  double score = 0;  // 0 to 100
};

/// One row of `seer inspect --json`.
struct InspectRow : ReportSetting {
  std::int64_t length = 0;
  double density = 0;
  double recall = 0;
  double oracle_recall = 0;
  std::vector<std::vector<double>> head_density;  // [layers][heads]
  std::vector<std::vector<double>> head_recall;
};

/// One record of the GPU attention benchmark (bench/).
struct KernelRecord {
  std::string op;    // "prefill" or "decode"
  std::string peer;  // empty: this project's kernel
  std::string device;
  std::string shape;  // "32 heads, 8 KV heads of 128, bf16"
  std::string mask;
  std::int64_t length = 0;
  double density = 0;
  double ms = 0;
};

/// The rows of one results folder, with what they were made by.
struct ReportRun {
  std::string name;
  std::vector<std::pair<std::string, std::string>> provenance;  // in the order to be shown
  std::vector<PerplexityRow> perplexity;
  std::vector<TaskRow> ruler;
  std::vector<NeedleSample> needles;
  std::vector<TaskRow> longbench;
  std::vector<InspectRow> inspections;
  std::vector<KernelRecord> kernels;
};

/// Reads a results folder (any of ppl.json, ruler.json with ruler.samples.jsonl, longbench.json,
/// inspect*.json and cuda_attention*.json) or one file of such rows, told apart by their fields. Throws Error
/// naming the file, the row and the field.
ReportRun read_report_run(const std::string& path);

/// The folder's run, or, where it has no such files itself, those of its folders in sorted order.
std::vector<ReportRun> read_report_runs(const std::string& path);

/// One page that needs nothing beside it: styles and figures (SVG) are in it; light and dark; printable.
std::string report_html(const std::vector<ReportRun>& runs);
std::string report_markdown(const std::vector<ReportRun>& runs);
/// One line per row of every kind; columns that a kind lacks are empty.
std::string report_csv(const std::vector<ReportRun>& runs);

}  // namespace seer
