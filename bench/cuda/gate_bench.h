// Timing of the gate's kernels, step by step and together, on random data.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace seer::cuda {

struct GateBenchOptions {
  std::vector<std::int64_t> lengths;  // tokens
  std::vector<double> densities;      // shares of the causal blocks that are selected
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int repeats = 0;  // timed runs; 0: chosen
};

/// One timed step. Runs of a step follow each other in a CUDA graph, so that gaps between launches are those
/// between kernels that are queued already.
struct GateTiming {
  std::int64_t length = 0;
  /// "rope", "rope + pool", "project k", "select"; "on top of rope": the last three together, less "rope".
  std::string step;
  std::string rule;    // of "select" and what contains it
  double density = 0;  // that the rule selected, counted
  double us = 0;       // median
  double us_least = 0;
  double us_most = 0;
  double bytes = 0;          // moved at least, everything once
  double share_of_copy = 0;  // the time that a device copy of as many bytes takes, over the time
};

/// Times every step at every length, calling `report` after each. Throws Error when a shape does not fit the
/// kernels.
void bench_gate(const GateBenchOptions& options, const std::function<void(const GateTiming&)>& report);

}  // namespace seer::cuda
