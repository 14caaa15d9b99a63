#include "eval/report.h"

#include "eval/report_sections.h"
#include "eval/setting_label.h"

namespace seer {
namespace {

ReportPage page_of(const std::vector<ReportRun>& runs) {
  ReportPage page;
  for (const ReportRun& run : runs) {
    page.heading(2, run.name);
    add_perplexity_section(run, page);
    add_ruler_section(run, page);
    add_longbench_section(run, page);
    add_inspect_section(run, page);
    add_kernel_section(run, page);
    if (run.provenance.empty()) continue;
    page.heading(3, "How this was measured");
    page.facts(run.provenance);
  }
  return page;
}

}  // namespace

std::string ReportSetting::label() const { return setting_label(selector, rule, value); }

std::string selector_style(const std::string& selector) {
  if (selector == "gate") return "s0";
  if (selector == "oracle") return "s1";
  if (selector == "local") return "s2";
  return "s3";
}

std::string report_html(const std::vector<ReportRun>& runs) {
  return page_of(runs).html("Learned block-sparse attention",
                            "Quality, density and time, dense and with selected blocks.");
}

std::string report_markdown(const std::vector<ReportRun>& runs) { return page_of(runs).markdown(); }

}  // namespace seer
