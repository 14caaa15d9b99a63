// seer inspect on the GPU against the CPU.
#include "eval/inspect.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"
#include "cuda/attention.h"
#include "model_support.h"
#include "support/golden.h"
#include "support/inputs.h"

namespace seer {
namespace {

using Rule = SparsityOptions::Rule;

EvalSetting setting(SelectorKind kind, Rule rule, double value) {
  return {.selector = kind, .sparsity = {.rule = rule, .value = value}};
}

bool same_bits(const BlockMask& a, const BlockMask& b) {
  const std::int64_t words = a.num_heads() * a.num_rows() * a.words();
  return words == b.num_heads() * b.num_rows() * b.words() &&
         std::equal(a.row(0, 0), a.row(0, 0) + words, b.row(0, 0));
}

class CudaInspect : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda::available(&reason)) GTEST_SKIP() << reason;
    if (test::golden_files("tiny-qwen2", "expected.safetensors").empty())
      GTEST_SKIP() << "no golden tiny models";
  }
};

TEST_F(CudaInspect, FindsWhatTheCpuFinds) {
  Both both(test::golden_path("tiny-qwen2").string());
  const Gate gate = make_gate(both.config);
  const auto tokens = test::some_tokens(1500, both.config.vocab_size);  // two chunks
  const InspectRequest request{.tokens = tokens,
                               .settings = {setting(SelectorKind::kLocal, Rule::kNzRatio, 0.3),
                                            setting(SelectorKind::kRandom, Rule::kNzRatio, 0.3),
                                            setting(SelectorKind::kGate, Rule::kNzRatio, 0.3),
                                            setting(SelectorKind::kGate, Rule::kThreshold, 0.03),
                                            setting(SelectorKind::kOracle, Rule::kNzRatio, 0.4),
                                            setting(SelectorKind::kOracle, Rule::kAdaptive, 0.3),
                                            setting(SelectorKind::kGate, Rule::kAdaptive, 1)},
                               .layers = {0, 1},
                               .heads = {0, 3},
                               .seed = 5};
  const Inspection expected = inspect(both.cpu, &gate, request);
  const Inspection actual = inspect(*both.gpu, &gate, request);

  ASSERT_EQ(actual.maps.size(), expected.maps.size());
  for (std::size_t i = 0; i < expected.maps.size(); ++i) {
    double difference = 0, size = 0;
    for (std::size_t j = 0; j < expected.maps[i].values.size(); ++j) {
      difference += std::pow(actual.maps[i].values[j] - expected.maps[i].values[j], 2);
      size += std::pow(expected.maps[i].values[j], 2);
    }
    EXPECT_LT(std::sqrt(difference / size), 0.03) << "map " << i;
  }
  ASSERT_EQ(actual.settings.size(), expected.settings.size());
  for (std::size_t i = 0; i < expected.settings.size(); ++i) {
    SCOPED_TRACE("setting " + std::to_string(i));
    const SettingInspection &on_cpu = expected.settings[i], &on_gpu = actual.settings[i];
    EXPECT_NEAR(on_gpu.density(), on_cpu.density(), 0.03 * on_cpu.density());
    EXPECT_NEAR(on_gpu.recall(), on_cpu.recall(), 0.01);
    EXPECT_NEAR(on_gpu.oracle_recall(), on_cpu.oracle_recall(), 0.01);
    const bool sees_nothing = i < 2;  // and so chooses the same blocks on every device
    for (int layer = 0; layer < on_cpu.num_layers() && sees_nothing; ++layer) {
      const auto at = static_cast<std::size_t>(layer);
      EXPECT_TRUE(same_bits(on_gpu.masks[at], on_cpu.masks[at])) << layer;
      for (int head = 0; head < on_cpu.num_heads; ++head)
        EXPECT_NEAR(on_gpu.head(layer, head).recall, on_cpu.head(layer, head).recall, 0.02)
            << layer << ' ' << head;
    }
    for (std::size_t head = 0; head < on_cpu.heads.size(); ++head)
      EXPECT_EQ(on_gpu.heads[head].causal_blocks, on_cpu.heads[head].causal_blocks);
  }
  EXPECT_EQ(actual.settings.back().density(), 1);
  EXPECT_NEAR(actual.settings.back().recall(), 1, 1e-4);
}

TEST_F(CudaInspect, LeavesThePrefillAsItIs) {
  Both both(test::golden_path("tiny-qwen2").string(), DType::kBF16, 1024);
  const Gate gate = make_gate(both.config);
  const auto tokens = test::some_tokens(1500, both.config.vocab_size);
  /// Asks about every kind of selector between a layer's attention and what follows it.
  struct Asker final : LayerObserver {
    ObserverWants wants() const override { return {.target = true, .probe = true, .gated = gated}; }
    void observe(const LayerObservation& seen) override {
      BlockMask mask;
      for (const auto& selector : selectors) {
        seen.probe->select(*selector, mask);
        seen.probe->log_sum_exp(mask);
      }
    }
    std::vector<std::unique_ptr<Selector>> selectors;
    Selector* gated = nullptr;
  } asker;
  for (const SelectorKind kind : {SelectorKind::kLocal, SelectorKind::kOracle, SelectorKind::kGate})
    asker.selectors.push_back(make_selector(kind, {Rule::kNzRatio, 0.3}, both.config, &gate, 0));
  asker.gated = asker.selectors.back().get();
  /// Computes the target too, so that attention is the same kernel's.
  struct Watcher final : LayerObserver {
    ObserverWants wants() const override { return {.target = true}; }
    void observe(const LayerObservation&) override {}
  } watcher;
  std::vector<PrefillResult> results;
  for (LayerObserver* observer : std::initializer_list<LayerObserver*>{&watcher, &asker}) {
    Sequence sequence = both.gpu->new_sequence();
    results.push_back(both.gpu->prefill(sequence, {.tokens = tokens, .observer = observer}));
  }
  EXPECT_EQ(results[1].last_logits, results[0].last_logits);
  EXPECT_EQ(results[1].stats.selected_blocks, results[0].stats.causal_blocks);
  Sequence sequence = both.gpu->new_sequence();
  EXPECT_THROW(
      both.gpu->prefill(sequence,
                        {.tokens = tokens, .selector = asker.selectors.front().get(), .observer = &asker}),
      Error);
}

}  // namespace
}  // namespace seer
