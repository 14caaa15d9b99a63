// What the sections of RULER and LongBench share: means over tasks and their figure.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/report.h"
#include "eval/report_page.h"

namespace seer {

/// Means over the tasks of one setting.
struct TaskMeans {
  ReportSetting setting;
  std::optional<double> score;  // none: no task has one
  double density = 0;
  double ttft_seconds = 0;
  std::int64_t tasks = 0;
  std::int64_t samples = 0;
  std::int64_t failed = 0;
};

/// Means by setting, dense first, of the rows for which `score_of` gives a score.
std::vector<TaskMeans> task_means(const std::vector<TaskRow>& rows,
                                  const std::function<std::optional<double>(const TaskRow&)>& score_of);

/// Marks the best score among selectors that can be run: not dense, not the oracle; of equal ones that of the
/// lowest density. None when none competes or all score the same.
std::optional<std::size_t> best_setting(const std::vector<TaskMeans>& means);

/// One chart of scores against measured density for each entry of `groups` (its title and means), with the
/// dense score as a line across.
void add_score_figure(const std::vector<std::pair<std::string, std::vector<TaskMeans>>>& groups,
                      ReportPage& page);

/// "Of N samples M failed." for all rows; empty when none failed.
std::string failure_note(const std::vector<TaskRow>& rows);

}  // namespace seer
