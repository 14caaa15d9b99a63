#include "train/sample_set.h"

namespace seer {

void GateRopes::attach(GateSample& sample) {
  auto [found, is_new] = tables_.try_emplace(sample.n);
  Table& table = found->second;
  if (is_new) {
    table.cos = Buffer<float>(sample.n * dim_ / 2);
    table.sin = Buffer<float>(sample.n * dim_ / 2);
    RopeTable(model_.rope, dim_, sample.n * kBlockSize)
        .fill(0, kBlockSize, sample.n, table.cos.data(), table.sin.data());
  }
  sample.cos = table.cos.data();
  sample.sin = table.sin.data();
}

SampleSet::SampleSet(const std::vector<std::string>& files, const GateConfig& gate, const ModelConfig& model)
    : shape(gate, model), ropes(model, gate.gate_hidden_size) {
  for (const std::string& file : files) {
    sequences.emplace_back(file, shape, model.num_layers);
    std::vector<GateSample>& layers = samples.emplace_back();
    for (int layer = 0; layer < model.num_layers; ++layer) {
      layers.push_back(sequences.back().sample(layer));
      ropes.attach(layers.back());
    }
  }
}

}  // namespace seer
