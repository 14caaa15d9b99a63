// The two halves of seer eval ruler.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/ruler.h"
#include "eval_common.h"

struct RulerFlags : EvalFlags {
  std::string haystack;
  std::vector<std::string> tasks;
  std::vector<std::int64_t> lengths;
  std::int64_t samples = 25;
  std::string score;  // folder of predictions to score instead of running a model
};

/// Runs a model over made-up or published samples.
void run_ruler(const RulerFlags& flags);
/// Scores a folder of predictions in the harness' layout.
void score_ruler(const RulerFlags& flags);

/// The tasks that --tasks names, in the suite's order, or an empty list.
std::vector<const seer::RulerTask*> named_ruler_tasks(const RulerFlags& flags);
