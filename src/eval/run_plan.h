// What `seer eval run` does: a configuration file taken apart into evaluations, in the order to run them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace seer {

/// One evaluation with one model and gate.
struct EvalJob {
  std::string task;    // "ppl", "ruler" or "longbench"
  std::string title;   // for people: "ppl, model pico, gate a"
  std::string folder;  // where its results go
  /// Folder of the same task with an earlier gate of the same model, or empty: samples that no gate decides
  /// about are the same there.
  std::string sibling;
  std::vector<std::string> arguments;  // of `seer eval TASK`, the model first where there is one
  double work = 0;                     // relative, for order and time left: about tokens times settings
};

struct EvalPlan {
  std::string results;
  std::vector<EvalJob> jobs;  // least work first
};

/// Is `flag` ("max-samples") a flag of `seer eval TASK`?
using KnowsFlag = std::function<bool(const std::string& task, const std::string& flag)>;

/// Reads a configuration (docs/report.md); `label` names it in messages. Throws Error naming the key that is
/// missing, unknown or of a wrong type.
EvalPlan parse_eval_plan(const std::string& json, const std::string& label, const KnowsFlag& knows);

}  // namespace seer
