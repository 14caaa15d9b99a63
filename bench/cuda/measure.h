// What the benchmarks of prefill and decode share: times, checks against float64, repeated bits.
#pragma once

#include <cstdint>
#include <functional>

#include "attention_bench.h"
#include "cuda/attention.h"
#include "cuda/device_array.h"

struct CUgraphExec_st;

namespace seer::cuda {

/// What `work` launches on the stream that it is given, captured.
class Graph {
 public:
  explicit Graph(const std::function<void(Stream)>& work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(Stream stream) const;

 private:
  CUgraphExec_st* executable_ = nullptr;
};

/// Times `run` with events: two runs to warm up, then `repeats`, or about 0.3 s of them if that is 0.
void time_runs(int repeats, const std::function<void()>& run, AttentionTiming& timing);

/// Fills in the shares and rates that follow from the time: `flop` and `bytes` of one run, and the time of
/// the dense case (0: this is it).
void rate(const DeviceRoof& roof, double flop, double bytes, double dense_ms, AttentionTiming& timing);

/// Sets max_error and rounding_error of the output [total_q, num_heads, head_dim] of `params`, looking at
/// every `token_step`-th query. params.out and lse are not used.
void check_output(const PrefillAttentionParams& params, std::int64_t token_step,
                  const DeviceArray<std::uint16_t>& out, AttentionTiming& timing);

/// Throws Error naming the case if its check failed or its bits differed.
void require_right(const AttentionTiming& timing);

/// Whether `runs` runs give the same output bits while a second stream copies memory.
bool same_bits(int runs, DeviceArray<std::uint16_t>& out, const std::function<void()>& run);

}  // namespace seer::cuda
