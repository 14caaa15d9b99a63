#include "gate_bench.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <utility>

#include "cuda/device_array.h"
#include "gate_pipeline.h"
#include "measure.h"

namespace seer::cuda {
namespace {

/// A stream and a pair of events.
class Clock {
 public:
  Clock() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    check(cudaEventCreate(&begin_), "event");
    check(cudaEventCreate(&end_), "event");
  }
  ~Clock() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  cudaStream_t stream() const { return stream_; }

  /// Microseconds that `run` takes.
  template <class Run>
  double time(const Run& run) {
    check(cudaEventRecord(begin_, stream_), "event");
    run();
    check(cudaEventRecord(end_, stream_), "event");
    check(cudaEventSynchronize(end_), "kernel");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "event");
    return static_cast<double>(ms) * 1e3;
  }

 private:
  cudaStream_t stream_{};
  cudaEvent_t begin_{}, end_{};
};

/// Median, least and most microseconds of one run of `step`: graphs of as many runs as take about a
/// millisecond, and 32 launches of that (or `repeats`).
std::array<double, 3> time_step(Clock& clock, int repeats, const std::function<void(Stream)>& step) {
  constexpr double kGraphMicroseconds = 1500;
  constexpr int kMostRuns = 64;
  const auto once = [&] { step(clock.stream()); };
  clock.time(once);
  const int runs = std::clamp(static_cast<int>(kGraphMicroseconds / clock.time(once)), 1, kMostRuns);
  const Graph graph([&](Stream stream) {
    for (int i = 0; i < runs; ++i) step(stream);
  });
  const auto launch = [&] { graph.launch(clock.stream()); };
  clock.time(launch);
  std::vector<double> times;
  for (int i = 0; i < (repeats > 0 ? repeats : 32); ++i) times.push_back(clock.time(launch) / runs);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

/// Device memory that a large copy reads and writes, GB/s.
double copy_bandwidth() {
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  DeviceArray<std::uint8_t> memory(2 * kBytes);
  memory.fill_bytes(1);
  Clock clock;
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double us = clock.time([&] {
      check(cudaMemcpyAsync(memory.data(), memory.data() + kBytes, kBytes, cudaMemcpyDeviceToDevice,
                            clock.stream()),
            "copy");
    });
    best = std::max(best, 2 * static_cast<double>(kBytes) / us * 1e-3);
  }
  return best;
}

}  // namespace

void bench_gate(const GateBenchOptions& options, const std::function<void(const GateTiming&)>& report) {
  const double copy = copy_bandwidth();
  Clock clock;
  for (const std::int64_t length : options.lengths) {
    GatePipeline pipeline({length, options.heads, options.kv_heads, options.head_dim});
    const auto time = [&](GateTiming timing, double bytes, double less_us,
                          const std::function<void(Stream)>& step) {
      const auto [median, least, most] = time_step(clock, options.repeats, step);
      timing.length = length;
      timing.us = median - less_us;
      timing.us_least = least - less_us;
      timing.us_most = most - less_us;
      timing.bytes = bytes;
      timing.share_of_copy = bytes / copy * 1e-3 / timing.us;
      report(timing);
      return median;
    };
    const double rope_us =
        time({.step = "rope"}, pipeline.rope_bytes(), 0, [&](Stream s) { pipeline.rope(s); });
    time({.step = "rope + pool"}, pipeline.rope_bytes() + pipeline.pool_bytes(), 0,
         [&](Stream s) { pipeline.rope_pool(s); });
    time({.step = "project k"}, pipeline.project_bytes(), 0, [&](Stream s) { pipeline.project_k(s); });
    const double gate_bytes = pipeline.pool_bytes() + pipeline.project_bytes() + pipeline.select_bytes();
    constexpr std::pair<SelectRule, const char*> kRules[] = {{SelectRule::kNzRatio, "nz_ratio"},
                                                             {SelectRule::kThreshold, "threshold"},
                                                             {SelectRule::kResidual, "residual"},
                                                             {SelectRule::kTopP, "top_p"}};
    for (const auto& [rule, name] : kRules) {
      for (const double density : options.densities) {
        const SelectParams params = pipeline.params_for(rule, density);
        GateTiming timing = {.rule = name, .density = pipeline.density(params)};
        timing.step = "select";
        time(timing, pipeline.select_bytes(), 0, [&](Stream s) { pipeline.select(params, s); });
        timing.step = "on top of rope";
        time(timing, gate_bytes, rope_us, [&](Stream s) { pipeline.all(params, s); });
      }
    }
  }
}

}  // namespace seer::cuda
