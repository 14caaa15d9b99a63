// Gate training on the GPU against that on the CPU.
#include "cuda/gate_train.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/attention.h"
#include "support/compare.h"
#include "support/errors.h"
#include "train/gate_trainer.h"
#include "train/random_samples.h"

namespace seer::cuda {
namespace {

struct Case {
  std::string name;
  int num_heads = 4;
  int num_kv_heads = 2;
  int gate_dim = 64;  // head_dim is 64
  std::string gate_type = "Qavg_Kmaxminavg";
  bool force_double = false;
  GateLoss loss = GateLoss::kRow;
};

void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  return {{.name = "a_matrix_a_query_head"},
          {.name = "reference_loss", .loss = GateLoss::kReference},
          {.name = "group_of_seven", .num_heads = 14},
          {.name = "no_group", .num_heads = 3, .num_kv_heads = 3},
          {.name = "two_matrices", .gate_type = "Qmaxminavg_Kmaxminavg"},
          {.name = "two_matrices_narrow", .gate_dim = 32, .gate_type = "Qmaxavg_Kavg"},
          {.name = "forced_double", .num_heads = 10, .force_double = true, .loss = GateLoss::kReference}};
}

ModelConfig model_of(const Case& c) {
  ModelConfig model;
  model.num_layers = 3;
  model.num_heads = c.num_heads;
  model.num_kv_heads = c.num_kv_heads;
  model.head_dim = 64;
  model.max_position_embeddings = model.rope.max_position_embeddings = 1 << 17;
  return model;
}

GateConfig gate_of(const Case& c) {
  GateConfig gate = parse_gate_type(c.gate_type);
  gate.gate_hidden_size = c.gate_dim;
  gate.force_double = c.force_double;
  return gate;
}

RandomSamples samples_of(const Case& c) {
  constexpr std::int64_t kBlocks[] = {5, 70, 33, 128};
  return RandomSamples(model_of(c), gate_of(c), kBlocks);
}

/// Batches of three of the four sequences, a learning rate that moves.
std::vector<double> take_step(GateTrainer& trainer, std::int64_t step) {
  const auto first = static_cast<std::size_t>(step % 4);
  const std::size_t batch[] = {first, (first + 1) % 4, (first + 2) % 4};
  return trainer.step(batch, step, 5e-3 / (1 + 0.1 * static_cast<double>(step)));
}

std::vector<float> flat(const TrainState& state) {
  std::vector<float> values;
  for (std::size_t layer = 0; layer < state.gate.layers.size(); ++layer) {
    const GateLayer& weights = state.gate.layers[layer];
    for (const Buffer<float>* buffer : {&weights.k_weight, &weights.q_weight, &state.k[layer].m,
                                        &state.k[layer].v, &state.q[layer].m, &state.q[layer].v})
      values.insert(values.end(), buffer->begin(), buffer->end());
  }
  return values;
}

class GateTrain : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

TEST_P(GateTrain, OneStepHasTheCpusGradient) {
  const RandomSamples samples = samples_of(GetParam());
  TrainState cpu_state = samples.state(), gpu_state = samples.state();
  const Context context(2);
  const auto cpu = make_cpu_trainer(context, samples.set(), GetParam().loss, cpu_state);
  const auto gpu = make_cuda_trainer(samples.set(), GetParam().loss, gpu_state);
  const std::vector<double> cpu_loss = take_step(*cpu, 1), gpu_loss = take_step(*gpu, 1);
  gpu->read_back();
  for (std::size_t layer = 0; layer < cpu_loss.size(); ++layer) {
    EXPECT_NEAR(gpu_loss[layer], cpu_loss[layer], 1e-5 * std::abs(cpu_loss[layer])) << "layer " << layer;
    // From zero, the first moment is a tenth of the gradient.
    for (const auto moments : {&TrainState::k, &TrainState::q}) {
      const Buffer<float>& expected = (cpu_state.*moments)[layer].m;
      const Buffer<float>& actual = (gpu_state.*moments)[layer].m;
      float largest = 0;
      for (const float value : expected) largest = std::max(largest, std::abs(value));
      const auto size = static_cast<std::size_t>(expected.size());
      EXPECT_TRUE(test::all_close(std::span(actual.data(), size), std::span(expected.data(), size),
                                  1e-5 * static_cast<double>(largest)))
          << "layer " << layer;
    }
  }
}

TEST_P(GateTrain, LossesFollowTheCpus) {
  const RandomSamples samples = samples_of(GetParam());
  TrainState cpu_state = samples.state(), gpu_state = samples.state();
  const Context context(2);
  const auto cpu = make_cpu_trainer(context, samples.set(), GetParam().loss, cpu_state);
  const auto gpu = make_cuda_trainer(samples.set(), GetParam().loss, gpu_state);
  double largest = 0;
  for (std::int64_t step = 1; step <= 20; ++step) {
    const std::vector<double> cpu_loss = take_step(*cpu, step), gpu_loss = take_step(*gpu, step);
    for (std::size_t layer = 0; layer < cpu_loss.size(); ++layer) {
      const double error = std::abs(gpu_loss[layer] - cpu_loss[layer]) / std::abs(cpu_loss[layer]);
      EXPECT_LE(error, 1e-4) << "step " << step << ", layer " << layer;
      largest = std::max(largest, error);
    }
  }
  RecordProperty("error", ::testing::PrintToString(largest));
}

TEST_P(GateTrain, AnInterruptedRunEndsWithTheSameBits) {
  const RandomSamples samples = samples_of(GetParam());
  TrainState whole = samples.state(), parts = samples.state();
  const auto undisturbed = make_cuda_trainer(samples.set(), GetParam().loss, whole);
  for (std::int64_t step = 1; step <= 6; ++step) take_step(*undisturbed, step);
  undisturbed->read_back();
  for (const std::int64_t first : {1, 3, 4}) {
    const std::int64_t last = first == 1 ? 2 : first == 3 ? 3 : 6;
    const auto trainer = make_cuda_trainer(samples.set(), GetParam().loss, parts);
    for (std::int64_t step = first; step <= last; ++step) take_step(*trainer, step);
    trainer->read_back();
  }
  EXPECT_EQ(flat(parts), flat(whole));
}

INSTANTIATE_TEST_SUITE_P(Cases, GateTrain, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(GateTrainMemory, WhatDoesNotFitIsRefusedBeforeAnythingIsCopied) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  const GateTrainShape shape{
      .layers = 32, .num_heads = 32, .num_kv_heads = 8, .dim = 128, .q_width = 128, .k_width = 384};
  const std::vector<GateTrainSequence> sequences(3, GateTrainSequence{.n = 1 << 14});
  EXPECT_TRUE(test::error_names([&] { GateTraining training(shape, sequences); },
                                {"3 sequences", "16384 blocks", "GiB", "--sequences", "--device cpu"}));
}

TEST(GateTrainShape, IsChecked) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  GateTrainShape shape{
      .layers = 1, .num_heads = 4, .num_kv_heads = 3, .dim = 64, .q_width = 64, .k_width = 64};
  EXPECT_THROW(GateTraining(shape, {}), Error);
  shape.num_kv_heads = 2;
  shape.q_width = 128;
  EXPECT_THROW(GateTraining(shape, {}), Error);
}

}  // namespace
}  // namespace seer::cuda
