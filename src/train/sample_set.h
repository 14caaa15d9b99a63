// Cached sequences opened for training or measuring.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "model/config.h"
#include "train/gate_gradient.h"
#include "train/target_cache.h"

namespace seer {

/// Rotary tables of a gate by the number of blocks: only dynamic scaling makes them differ.
class GateRopes {
 public:
  GateRopes(const ModelConfig& model, int dim) : model_(model), dim_(dim) {}

  /// Sets the sample's cos and sin, which live as long as this.
  void attach(GateSample& sample);

 private:
  struct Table {
    Buffer<float> cos, sin;
  };
  ModelConfig model_;
  int dim_;
  std::map<std::int64_t, Table> tables_;
};

/// Samples [sequence][layer] with their files open.
struct SampleSet {
  SampleSet(const std::vector<std::string>& files, const GateConfig& gate, const ModelConfig& model);

  GateShape shape;
  GateRopes ropes;
  std::vector<CachedSequence> sequences;
  std::vector<std::vector<GateSample>> samples;
};

}  // namespace seer
