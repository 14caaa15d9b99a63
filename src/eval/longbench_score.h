// Scores of LongBench tasks from their samples' scores, rounded as the published harness rounds them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace seer {

/// LongBench-E reports each task by the samples' `length`: below 4000, below 8000, and the rest.
inline constexpr std::array<std::string_view, 3> kLongBenchBuckets{"0-4k", "4-8k", "8k+"};
std::size_t longbench_bucket(std::int64_t length);

/// numpy.mean: of nothing NaN; from eight values on, eight sums that are added up at the end.
double numpy_mean(std::span<const double> values);

/// Scores in hundredths of a percent. NaN where there is no sample.
struct LongBenchTaskScore {
  std::string task;
  std::array<double, kLongBenchBuckets.size()> buckets{};
  double plain = 0;  // over all samples, with Python's rounding instead of NumPy's
};

/// `scores` (0 to 1) and `lengths` of a task's samples, in the file's order.
LongBenchTaskScore longbench_task_score(std::string_view task, std::span<const double> scores,
                                        std::span<const std::int64_t> lengths);

/// The means over tasks, of values already rounded; `task` says of how many. One empty bucket makes a mean
/// NaN.
LongBenchTaskScore longbench_average(std::span<const LongBenchTaskScore> tasks);

/// result.json as the harness writes it: by task, then `averaged`. With `by_bucket` as for LongBench-E, else
/// one number a task.
std::string longbench_result_json(std::span<const LongBenchTaskScore> tasks, bool by_bucket);

}  // namespace seer
