// seer report: tables and figures from results.
#include "eval/report.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "commands.h"
#include "io/tensor_file.h"

using namespace seer;

namespace {

struct Flags {
  std::vector<std::string> results;
  std::string html, markdown, csv;
};

void report(const Flags& flags) {
  std::vector<ReportRun> runs;
  for (const std::string& path : flags.results)
    for (ReportRun& run : read_report_runs(path)) runs.push_back(std::move(run));
  if (!flags.html.empty()) write_file_atomically(flags.html, report_html(runs));
  if (!flags.markdown.empty()) write_file_atomically(flags.markdown, report_markdown(runs));
  if (!flags.csv.empty()) write_file_atomically(flags.csv, report_csv(runs));
  if (flags.html.empty() && flags.markdown.empty() && flags.csv.empty())
    fmt::print("{}", report_markdown(runs));
}

}  // namespace

void add_report(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *parent.add_subcommand("report", "Tables and figures from results");
  command
      .add_option("RESULTS", flags->results,
                  "folders that seer eval wrote, or files of rows of seer eval, seer inspect --json and the "
                  "attention benchmark")
      ->required();
  command.add_option("--out", flags->html, "web page with figures");
  command.add_option("--markdown", flags->markdown, "tables as Markdown (default: to standard output)");
  command.add_option("--csv", flags->csv, "one line per row");
  command.callback([flags] { report(*flags); });
}
