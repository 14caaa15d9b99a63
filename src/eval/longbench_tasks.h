// The tasks of LongBench and LongBench-E, and how each is prompted and scored.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace seer {

enum class LongBenchMetric { kQaF1, kRougeL, kClassification, kRetrieval, kCount, kCodeSimilarity };

struct LongBenchTask {
  std::string_view name;
  LongBenchMetric metric;
  bool in_e = false;             // one of the 13 tasks of LongBench-E
  bool chat = true;              // the prompt gets the model's chat template
  bool first_line_only = false;  // the prediction is cut after its first line that is not empty
};

/// In the order of the published harness. The Chinese tasks that need word segmentation are not there.
std::span<const LongBenchTask> longbench_tasks();

/// Throws Error, naming `label` and listing the tasks, for an unknown name.
const LongBenchTask& find_longbench_task(std::string_view name, const std::string& label);

}  // namespace seer
