#include "train/random_samples.h"

#include <cmath>

namespace seer {
namespace {

/// Uniform with mean 0 and variance 1; unlike the library's distributions the same everywhere.
float uniform(std::mt19937& random) {
  return std::sqrt(12.0f) * (static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f);
}

/// A softmax row of `size` random scores.
void append_row(std::mt19937& random, std::int64_t size, std::vector<Float16>& target) {
  std::vector<float> row(static_cast<std::size_t>(size));
  double sum = 0;
  for (float& value : row) sum += value = std::exp(2 * uniform(random));
  for (const float value : row) target.push_back(to_float16(static_cast<float>(value / sum)));
}

}  // namespace

RandomSamples::RandomSamples(const ModelConfig& model, const GateConfig& gate,
                             std::span<const std::int64_t> blocks)
    : model_(model), gate_(gate), set_({}, gate, model) {
  const GateShape& shape = set_.shape;
  for (const std::int64_t n : blocks) {
    std::vector<GateSample>& layers = set_.samples.emplace_back();
    for (int layer = 0; layer < model.num_layers; ++layer) {
      GateSample sample{.n = n};
      sample.q = values(shape.num_heads * n * shape.q_width).data();
      sample.k = values(shape.num_kv_heads * n * shape.k_width).data();
      std::vector<Float16>& target = targets_.emplace_back();
      target.reserve(static_cast<std::size_t>(shape.num_heads * triangle(n)));
      for (std::int64_t row = 0; row < shape.num_heads * n; ++row) append_row(random_, row % n + 1, target);
      sample.target = target.data();
      set_.ropes.attach(sample);
      layers.push_back(sample);
    }
  }
}

std::vector<float>& RandomSamples::values(std::int64_t size) {
  std::vector<float>& made = values_.emplace_back(static_cast<std::size_t>(size));
  for (float& value : made) value = uniform(random_);
  return made;
}

TrainState RandomSamples::state() const {
  std::mt19937 random(1);
  const auto draw = [&](std::int64_t size) {
    Buffer<float> weights(size);
    for (float& weight : weights) weight = 0.05f * uniform(random);
    return weights;
  };
  const GateShape& shape = set_.shape;
  TrainState state;
  state.gate.config = gate_;
  for (int layer = 0; layer < model_.num_layers; ++layer) {
    GateLayer weights;
    weights.k_weight = draw(shape.num_kv_heads * shape.k_group());
    weights.q_weight = draw(shape.num_kv_heads * shape.q_group());
    state.k.emplace_back(weights.k_weight.size());
    state.q.emplace_back(weights.q_weight.size());
    state.gate.layers.push_back(std::move(weights));
  }
  return state;
}

}  // namespace seer
