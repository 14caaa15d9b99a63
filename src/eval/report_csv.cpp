// All rows of a report in one table.
#include <fmt/format.h>

#include <iterator>

#include "eval/report.h"

namespace seer {
namespace {

std::string quoted(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '"' ? std::string("\"\"") : std::string(1, c);
  return '"' + escaped + '"';
}

/// A line's columns after the run; empty strings and none stay empty.
struct Line {
  std::string evaluation, task;
  std::int64_t length = 0;
  ReportSetting setting;
  double density = 0;
  std::string measure;
  double score = 0;
  std::int64_t samples = 0, failed = 0;
  double seconds = 0, select_seconds = 0, attention_seconds = 0;
};

void append(const std::string& run, const Line& line, std::string& text) {
  fmt::format_to(std::back_inserter(text), "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", quoted(run),
                 line.evaluation, quoted(line.task), line.length, line.setting.selector, line.setting.rule,
                 line.setting.value, line.density, line.measure, line.score, line.samples, line.failed,
                 line.seconds, line.select_seconds, line.attention_seconds);
}

void append_tasks(const std::string& run, const char* evaluation, const std::vector<TaskRow>& rows,
                  std::string& text) {
  for (const TaskRow& row : rows)
    append(run,
           {evaluation, row.task, row.length, row, row.density, "score", row.score, row.samples, row.failed,
            row.ttft_seconds, row.select_seconds, row.attention_seconds},
           text);
}

}  // namespace

std::string report_csv(const std::vector<ReportRun>& runs) {
  std::string text =
      "run,evaluation,task,length,selector,rule,value,density,measure,score,samples,failed,seconds,"
      "select_seconds,attention_seconds\n";
  for (const ReportRun& run : runs) {
    for (const PerplexityRow& row : run.perplexity)
      append(run.name,
             {"ppl", "", row.length, row, row.density, "perplexity", row.ppl, row.documents, 0,
              row.prefill_seconds, row.select_seconds, row.attention_seconds},
             text);
    append_tasks(run.name, "ruler", run.ruler, text);
    append_tasks(run.name, "longbench", run.longbench, text);
    for (const InspectRow& row : run.inspections)
      for (std::size_t layer = 0; layer < row.head_density.size(); ++layer)
        for (std::size_t head = 0; head < row.head_density[layer].size(); ++head)
          append(run.name,
                 {"inspect", fmt::format("layer {} head {}", layer, head), row.length, row,
                  row.head_density[layer][head], "recall", row.head_recall[layer][head], 1},
                 text);
    for (const KernelRecord& record : run.kernels)
      append(run.name,
             {"kernel",
              fmt::format("{} {}, {} mask, {}, {}", record.op, record.peer.empty() ? "seer" : record.peer,
                          record.mask, record.shape, record.device),
              record.length, ReportSetting(), record.density, "milliseconds", record.ms, 1},
             text);
  }
  return text;
}

}  // namespace seer
