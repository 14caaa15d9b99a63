// The table of LongBench results on standard output.
#pragma once

#include <cstdint>
#include <span>

#include "eval/longbench_eval.h"

/// Rows of a model's own run, with what it computed and how long that took.
/// `by_bucket`: with columns for LongBench-E's buckets.
class LongBenchTable {
 public:
  explicit LongBenchTable(bool by_bucket) : by_bucket_(by_bucket) {}
  void print_header() const;
  /// Speed-ups are over `rows` of the dense selector, where there is one.
  void print(std::span<const seer::LongBenchRow> rows) const;

 private:
  bool by_bucket_;
};

/// Rows of predictions that were made elsewhere.
struct ScoredPredictions {
  seer::LongBenchTaskScore score;
  std::int64_t samples = 0;
  std::int64_t failed = 0;
  std::int64_t empty = 0;
};
void print_scored(std::span<const ScoredPredictions> rows, bool by_bucket);
