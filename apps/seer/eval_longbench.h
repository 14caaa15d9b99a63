// The two halves of seer eval longbench.
#pragma once

#include <string>
#include <vector>

#include "eval/longbench_tasks.h"
#include "eval_common.h"

struct LongBenchFlags : EvalFlags {
  std::string config;
  std::vector<std::string> tasks;
  bool e = true;
  bool truncate = true;
  std::int64_t max_samples = 0;
  std::string score;  // folder of predictions to score instead of running a model
};

/// Runs a model over LongBench's samples.
void run_longbench(const LongBenchFlags& flags);
/// Scores a folder of predictions in the harness' layout.
void score_longbench(const LongBenchFlags& flags);

/// The tasks that --tasks names, or an empty list.
std::vector<const seer::LongBenchTask*> named_longbench_tasks(const LongBenchFlags& flags);
