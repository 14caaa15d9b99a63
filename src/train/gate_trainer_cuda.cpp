#include "cuda/gate_train.h"
#include "train/adam.h"
#include "train/gate_trainer.h"

namespace seer {
namespace {

using cuda::GateTraining;

cuda::GateTrainShape shape_of(const SampleSet& set, const TrainState& state) {
  return {.layers = static_cast<int>(state.gate.layers.size()),
          .num_heads = set.shape.num_heads,
          .num_kv_heads = set.shape.num_kv_heads,
          .dim = set.shape.dim,
          .q_width = set.shape.q_width,
          .k_width = set.shape.k_width,
          .has_q_linear = set.shape.has_q_linear};
}

std::vector<cuda::GateTrainSequence> sequences_of(const SampleSet& set) {
  std::vector<cuda::GateTrainSequence> sequences;
  for (const std::vector<GateSample>& layers : set.samples) {
    cuda::GateTrainSequence& sequence = sequences.emplace_back();
    sequence.n = layers.front().n;
    sequence.cos = layers.front().cos;
    sequence.sin = layers.front().sin;
    for (const GateSample& sample : layers) {
      sequence.q.push_back(sample.q);
      sequence.k.push_back(sample.k);
      sequence.target.push_back(sample.target);
    }
  }
  return sequences;
}

class CudaTrainer final : public GateTrainer {
 public:
  CudaTrainer(const SampleSet& set, GateLoss loss, TrainState& state)
      : set_(set), loss_(loss), state_(state), training_(shape_of(set, state), sequences_of(set)) {
    for_each_layer([&](GateTraining::Matrix which, int layer, Buffer<float>& weight, Moments& moments) {
      training_.upload(which, layer, weight.data(), moments.m.data(), moments.v.data());
    });
  }

  std::vector<double> step(std::span<const std::size_t> batch, std::int64_t step,
                           double learning_rate) override {
    std::vector<cuda::GateTrainItem> items;
    for (const std::size_t sequence : batch) {
      const RowWeights rows(loss_, set_.samples[sequence].front().n, set_.shape.num_heads);
      items.push_back({.sequence = sequence, .skip_rows = rows.skip_rows, .row_weight = rows.weight});
    }
    return training_.step(items, adam_factors({}, step, learning_rate));
  }

  void read_back() override {
    for_each_layer([&](GateTraining::Matrix which, int layer, Buffer<float>& weight, Moments& moments) {
      training_.download(which, layer, weight.data(), moments.m.data(), moments.v.data());
    });
  }

 private:
  template <class Visit>
  void for_each_layer(Visit&& visit) {
    for (std::size_t layer = 0; layer < state_.gate.layers.size(); ++layer) {
      GateLayer& weights = state_.gate.layers[layer];
      visit(GateTraining::Matrix::kKey, static_cast<int>(layer), weights.k_weight, state_.k[layer]);
      if (set_.shape.has_q_linear)
        visit(GateTraining::Matrix::kQuery, static_cast<int>(layer), weights.q_weight, state_.q[layer]);
    }
  }

  const SampleSet& set_;
  GateLoss loss_;
  TrainState& state_;
  GateTraining training_;
};

}  // namespace

std::unique_ptr<GateTrainer> make_cuda_trainer(const SampleSet& set, GateLoss loss, TrainState& state) {
  return std::make_unique<CudaTrainer>(set, loss, state);
}

}  // namespace seer
