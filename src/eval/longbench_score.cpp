#include "eval/longbench_score.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "eval/python_text.h"

namespace seer {
namespace {

/// NumPy's pairwise summation.
double pairwise_sum(std::span<const double> values) {
  constexpr std::size_t kLanes = 8, kBlock = 128;
  const std::size_t size = values.size();
  if (size < kLanes) return std::accumulate(values.begin(), values.end(), 0.0);
  if (size > kBlock) {
    const std::size_t half = size / 2 / kLanes * kLanes;
    return pairwise_sum(values.first(half)) + pairwise_sum(values.subspan(half));
  }
  std::array<double, kLanes> sums;
  std::copy_n(values.begin(), kLanes, sums.begin());
  std::size_t i = kLanes;
  for (; i + kLanes <= size; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += values[i + lane];
  double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  for (; i < size; ++i) sum += values[i];
  return sum;
}

std::string by_bucket_json(const std::array<double, kLongBenchBuckets.size()>& values) {
  std::string text;
  for (std::size_t b = 0; b < values.size(); ++b)
    text += fmt::format("{}        \"{}\": {}", b == 0 ? "{\n" : ",\n", kLongBenchBuckets[b],
                        python_float(values[b]));
  return text + "\n    }";
}

}  // namespace

std::size_t longbench_bucket(std::int64_t length) { return length < 4000 ? 0 : length < 8000 ? 1 : 2; }

double numpy_mean(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return pairwise_sum(values) / static_cast<double>(values.size());
}

LongBenchTaskScore longbench_task_score(std::string_view task, std::span<const double> scores,
                                        std::span<const std::int64_t> lengths) {
  LongBenchTaskScore result{.task = std::string(task)};
  std::array<std::vector<double>, kLongBenchBuckets.size()> in_bucket;
  double sum = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    in_bucket[longbench_bucket(lengths[i])].push_back(scores[i]);
    sum += scores[i];
  }
  for (std::size_t b = 0; b < in_bucket.size(); ++b)
    result.buckets[b] = numpy_round(100 * numpy_mean(in_bucket[b]));
  result.plain = scores.empty() ? std::numeric_limits<double>::quiet_NaN()
                                : python_round(100 * sum / static_cast<double>(scores.size()));
  return result;
}

LongBenchTaskScore longbench_average(std::span<const LongBenchTaskScore> tasks) {
  LongBenchTaskScore average{.task = fmt::format("average of {}", tasks.size())};
  const auto mean = [&](const auto& value_of) {
    std::vector<double> values;
    for (const LongBenchTaskScore& task : tasks) values.push_back(value_of(task));
    return numpy_round(numpy_mean(values));
  };
  for (std::size_t b = 0; b < average.buckets.size(); ++b)
    average.buckets[b] = mean([&](const LongBenchTaskScore& task) { return task.buckets[b]; });
  average.plain = mean([](const LongBenchTaskScore& task) { return task.plain; });
  return average;
}

std::string longbench_result_json(std::span<const LongBenchTaskScore> tasks, bool by_bucket) {
  std::string text = "{";
  for (const LongBenchTaskScore& task : tasks)
    text += fmt::format("\n    \"{}\": {},", task.task,
                        by_bucket ? by_bucket_json(task.buckets) : python_float(task.plain));
  // The harness averages buckets alone, so a run without them has zeros there.
  const LongBenchTaskScore average = by_bucket ? longbench_average(tasks) : LongBenchTaskScore();
  return text + fmt::format("\n    \"averaged\": {}\n}}", by_bucket_json(average.buckets));
}

}  // namespace seer
