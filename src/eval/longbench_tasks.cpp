#include "eval/longbench_tasks.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "io/message.h"

namespace seer {
namespace {

using Metric = LongBenchMetric;

constexpr std::array<LongBenchTask, 17> kTasks{{
    {.name = "narrativeqa", .metric = Metric::kQaF1},
    {.name = "qasper", .metric = Metric::kQaF1, .in_e = true},
    {.name = "multifieldqa_en", .metric = Metric::kQaF1, .in_e = true},
    {.name = "hotpotqa", .metric = Metric::kQaF1, .in_e = true},
    {.name = "2wikimqa", .metric = Metric::kQaF1, .in_e = true},
    {.name = "musique", .metric = Metric::kQaF1},
    {.name = "gov_report", .metric = Metric::kRougeL, .in_e = true},
    {.name = "qmsum", .metric = Metric::kRougeL},
    {.name = "multi_news", .metric = Metric::kRougeL, .in_e = true},
    {.name = "trec", .metric = Metric::kClassification, .in_e = true, .chat = false, .first_line_only = true},
    {.name = "triviaqa", .metric = Metric::kQaF1, .in_e = true, .chat = false, .first_line_only = true},
    {.name = "samsum", .metric = Metric::kRougeL, .in_e = true, .chat = false, .first_line_only = true},
    {.name = "lsht", .metric = Metric::kClassification, .chat = false, .first_line_only = true},
    {.name = "passage_count", .metric = Metric::kCount, .in_e = true},
    {.name = "passage_retrieval_en", .metric = Metric::kRetrieval, .in_e = true},
    {.name = "lcc", .metric = Metric::kCodeSimilarity, .in_e = true, .chat = false},
    {.name = "repobench-p", .metric = Metric::kCodeSimilarity, .in_e = true, .chat = false},
}};

}  // namespace

std::span<const LongBenchTask> longbench_tasks() { return kTasks; }

const LongBenchTask& find_longbench_task(std::string_view name, const std::string& label) {
  const auto found = std::find_if(kTasks.begin(), kTasks.end(),
                                  [&](const LongBenchTask& task) { return task.name == name; });
  if (found != kTasks.end()) return *found;
  std::string names;
  for (const LongBenchTask& task : kTasks) names += (names.empty() ? "" : ", ") + std::string(task.name);
  fail("{}: expected a task of LongBench ({}), found {}", label, names, in_quotes(name));
}

}  // namespace seer
