// The parts of a report, one file each; shared by `seer report` and `seer inspect`.
#pragma once

#include <string>
#include <vector>

#include "eval/report.h"
#include "eval/report_page.h"

namespace seer {

/// Each adds its headings, figures and tables to the page, or nothing when the run has no such results.
void add_perplexity_section(const ReportRun& run, ReportPage& page);
void add_ruler_section(const ReportRun& run, ReportPage& page);
void add_longbench_section(const ReportRun& run, ReportPage& page);
void add_inspect_section(const ReportRun& run, ReportPage& page);
void add_kernel_section(const ReportRun& run, ReportPage& page);

/// Density and recall of every head under one setting.
struct HeadGrids {
  std::string label;
  double density = 0;
  double recall = 0;
  double oracle_recall = 0;
  std::vector<std::vector<double>> head_density;  // [layers][heads]
  std::vector<std::vector<double>> head_recall;
};
void add_head_grids(const HeadGrids& grids, ReportPage& page);

/// A selector keeps its colour and marker in every figure.
std::string selector_style(const std::string& selector);

}  // namespace seer
