// Updates of all layers' gates, on the CPU or the GPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "model/gate.h"
#include "train/gate_gradient.h"
#include "train/sample_set.h"

namespace seer {

/// Gradient and AdamW's running moments of one layer's matrices.
struct Moments {
  Buffer<float> gradient, m, v;
  explicit Moments(std::int64_t size) : gradient(size), m(size), v(size) {
    std::fill(m.begin(), m.end(), 0.0f);
    std::fill(v.begin(), v.end(), 0.0f);
  }
};

/// Gates of all layers with the optimizer's state.
struct TrainState {
  Gate gate;
  std::vector<Moments> k, q;  // q: empty buffers without a q linear
  std::int64_t step = 0;
  double seconds = 0;
  std::string log;  // lines of distill.jsonl
};

/// Takes steps from a state that it was made with. The same steps from the same state give the same bits.
class GateTrainer {
 public:
  virtual ~GateTrainer() = default;

  /// Update number `step` (from 1) of all gates, from the mean over the training sequences `batch`. Returns
  /// the loss before it by layer.
  virtual std::vector<double> step(std::span<const std::size_t> batch, std::int64_t step,
                                   double learning_rate) = 0;
  /// Brings the weights and moments of the state up to date.
  virtual void read_back() = 0;
};

/// `set` and `state` must outlive the trainer.
std::unique_ptr<GateTrainer> make_cpu_trainer(const Context& context, const SampleSet& set, GateLoss loss,
                                              TrainState& state);
/// Keeps the whole set on the GPU. Throws Error when it does not fit, and in a build without CUDA.
std::unique_ptr<GateTrainer> make_cuda_trainer(const SampleSet& set, GateLoss loss, TrainState& state);

}  // namespace seer
