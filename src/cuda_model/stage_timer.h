// How long the stages of a prefill take on the device.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <vector>

#include "cuda/check.h"

namespace seer {

enum class Stage { kOther, kProjection, kRopePool, kGate, kSelect, kAttention, kMlp, kLogits };
inline constexpr std::size_t kStages = 8;

/// Marks the ends of stages in a stream; nothing waits until seconds() is asked for.
class StageTimer {
 public:
  explicit StageTimer(cudaStream_t stream) : stream_(stream) {}
  ~StageTimer() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

  void start() {
    used_ = 0;
    stages_.clear();
    record();
  }
  /// What was launched since the last mark belongs to `stage`.
  void mark(Stage stage) {
    stages_.push_back(stage);
    record();
  }
  /// Seconds by stage since start(); the stream must have come to the last mark.
  std::array<double, kStages> seconds() const {
    std::array<double, kStages> total{};
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      float milliseconds = 0;
      cuda::check(cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]), "prefill");
      total[static_cast<std::size_t>(stages_[i])] += milliseconds * 1e-3;
    }
    return total;
  }

 private:
  void record() {
    if (used_ == events_.size()) cuda::check(cudaEventCreate(&events_.emplace_back()), "prefill");
    cuda::check(cudaEventRecord(events_[used_++], stream_), "prefill");
  }

  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;  // reused from prefill to prefill
  std::vector<Stage> stages_;
  std::size_t used_ = 0;
};

}  // namespace seer
