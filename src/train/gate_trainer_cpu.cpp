#include "train/adam.h"
#include "train/gate_trainer.h"

namespace seer {
namespace {

class CpuTrainer final : public GateTrainer {
 public:
  CpuTrainer(const Context& context, const SampleSet& set, GateLoss loss, TrainState& state)
      : context_(context),
        set_(set),
        loss_(loss),
        state_(state),
        workers_(make_workers(context, set.shape)) {}

  std::vector<double> step(std::span<const std::size_t> batch, std::int64_t step,
                           double learning_rate) override {
    const SingleThreadedProducts single_threaded;
    const GateShape& shape = set_.shape;
    const double share = 1.0 / static_cast<double>(batch.size());
    const auto num_layers = static_cast<std::int64_t>(state_.gate.layers.size());
    const std::int64_t items = num_layers * shape.num_kv_heads;
    std::vector<double> losses(static_cast<std::size_t>(items), 0.0);
    // A KV head's matrices of one layer learn from nothing but their own samples: no two items share
    // anything.
    context_.parallel_for(items, [&](std::int64_t item, int thread) {
      const auto layer = static_cast<std::size_t>(item / shape.num_kv_heads);
      const std::int64_t kv_head = item % shape.num_kv_heads;
      GateLayer& weights = state_.gate.layers[layer];
      const std::int64_t k_first = kv_head * shape.k_group(), q_first = kv_head * shape.q_group();
      float* d_k = state_.k[layer].gradient.data() + k_first;
      float* d_q = shape.has_q_linear ? state_.q[layer].gradient.data() + q_first : nullptr;
      std::fill_n(d_k, shape.k_group(), 0.0f);
      if (d_q != nullptr) std::fill_n(d_q, shape.q_group(), 0.0f);
      for (const std::size_t sequence : batch)
        losses[static_cast<std::size_t>(item)] +=
            share * workers_[static_cast<std::size_t>(thread)].backward(set_.samples[sequence][layer],
                                                                        static_cast<int>(kv_head), weights,
                                                                        loss_, share, d_k, d_q);
      adam_update({}, step, learning_rate, shape.k_group(), d_k, weights.k_weight.data() + k_first,
                  state_.k[layer].m.data() + k_first, state_.k[layer].v.data() + k_first);
      if (d_q != nullptr)
        adam_update({}, step, learning_rate, shape.q_group(), d_q, weights.q_weight.data() + q_first,
                    state_.q[layer].m.data() + q_first, state_.q[layer].v.data() + q_first);
    });
    std::vector<double> by_layer(static_cast<std::size_t>(num_layers), 0.0);
    for (std::int64_t item = 0; item < items; ++item)
      by_layer[static_cast<std::size_t>(item / shape.num_kv_heads)] += losses[static_cast<std::size_t>(item)];
    return by_layer;
  }

  void read_back() override {}

 private:
  const Context& context_;
  const SampleSet& set_;
  GateLoss loss_;
  TrainState& state_;
  std::vector<GateGradient> workers_;
};

}  // namespace

std::unique_ptr<GateTrainer> make_cpu_trainer(const Context& context, const SampleSet& set, GateLoss loss,
                                              TrainState& state) {
  return std::make_unique<CpuTrainer>(context, set, loss, state);
}

}  // namespace seer
