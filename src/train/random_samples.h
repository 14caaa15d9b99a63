// Random pooled inputs and targets, for the benchmark and the tests of training.
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <span>
#include <vector>

#include "train/gate_trainer.h"

namespace seer {

/// Samples for every layer of `model`: pooled channels of mean 0 and variance 1, targets softmax rows of
/// random scores. The same on every machine.
class RandomSamples {
 public:
  /// One sequence for each number of blocks.
  RandomSamples(const ModelConfig& model, const GateConfig& gate, std::span<const std::int64_t> blocks);

  const SampleSet& set() const { return set_; }
  /// Small random weights, moments 0; the same at every call.
  TrainState state() const;

 private:
  std::vector<float>& values(std::int64_t size);

  ModelConfig model_;
  GateConfig gate_;
  SampleSet set_;
  std::mt19937 random_;
  std::deque<std::vector<float>> values_;
  std::deque<std::vector<Float16>> targets_;
};

}  // namespace seer
