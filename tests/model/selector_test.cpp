#include "model/selector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/check.h"
#include "model/cpu_transformer.h"
#include "support/compare.h"
#include "support/golden.h"

namespace seer {
namespace {

/// A model of two layers with a gate that passes means through.
struct Fixture {
  explicit Fixture(std::int64_t chunk_tokens = 1024)
      : config(load_model_config(folder)),
        weights(std::make_shared<ModelWeights>(ModelWeights::load(folder, config))),
        transformer(weights, config, Context(2), {.chunk_tokens = chunk_tokens, .max_context = 4096}) {
    gate.config.gate_hidden_size = config.head_dim;
    const std::int64_t in = 3 * config.head_dim, out = config.head_dim;
    for (int layer = 0; layer < config.num_layers; ++layer) {
      GateLayer gate_layer{.k_weight = Buffer<float>(config.num_heads * in * out)};
      std::fill(gate_layer.k_weight.begin(), gate_layer.k_weight.end(), 0.0f);
      for (int head = 0; head < config.num_heads; ++head)
        for (std::int64_t d = 0; d < out; ++d)
          gate_layer.k_weight[(head * in + 2 * out + d) * out + d] = 1.0f;
      gate.layers.push_back(std::move(gate_layer));
    }
  }

  /// Masks of all chunks of a prefill, joined, as [layer, head, row] -> words.
  struct Recorder final : Selector {
    explicit Recorder(Selector& wrapped) : inner(wrapped) {}
    void begin(std::int64_t total) override { inner.begin(total); }
    bool select(const Context& context, const SelectInput& input, BlockMask& mask) override {
      const bool sparse = inner.select(context, input, mask);
      if (sparse)
        for (int head = 0; head < mask.num_heads(); ++head)
          for (std::int64_t row = 0; row < mask.num_rows(); ++row) {
            auto& out = rows[{input.layer, head, mask.first_row() + row}];
            out.clear();
            for (std::int64_t j = 0; j <= mask.first_row() + row; ++j) out.push_back(mask.test(head, row, j));
          }
      return sparse;
    }
    Selector& inner;
    std::map<std::tuple<int, int, std::int64_t>, std::vector<bool>> rows;
  };

  PrefillResult prefill(Selector* selector, std::int64_t tokens) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<std::int32_t>((i * i * 31 + i * 7 + 3) % 350);
    Sequence sequence = transformer.new_sequence();
    return transformer.prefill(sequence, {.tokens = ids, .selector = selector});
  }

  const std::string folder = test::golden_path("tiny-qwen2").string();
  ModelConfig config;
  std::shared_ptr<ModelWeights> weights;
  CpuTransformer transformer;
  Gate gate;
};

TEST(Selectors, NamesGoBothWays) {
  for (const std::string name : {"dense", "gate", "oracle", "local", "random"})
    EXPECT_EQ(name_of(parse_selector_kind(name)), name);
  for (const std::string name : {"adaptive", "nz_ratio", "threshold", "top_p", "residual"})
    EXPECT_EQ(name_of(parse_rule(name)), name);
  EXPECT_THROW(parse_selector_kind("best"), Error);
  EXPECT_THROW(parse_rule(""), Error);
}

TEST(Selectors, RefuseWhatTheyCannotDo) {
  Fixture f;
  const auto make = [&](SelectorKind kind, SparsityOptions options, const Gate* gate) {
    make_selector(kind, options, f.config, gate, 0)->begin(1000);
  };
  using Rule = SparsityOptions::Rule;
  EXPECT_THROW(make(SelectorKind::kGate, {Rule::kNzRatio, 0.5}, nullptr), Error);
  EXPECT_THROW(make(SelectorKind::kGate, {Rule::kAdaptive, 0.5}, &f.gate), Error);  // no calibration
  EXPECT_THROW(make(SelectorKind::kLocal, {Rule::kThreshold, 0.1}, nullptr), Error);
  EXPECT_THROW(make(SelectorKind::kRandom, {Rule::kTopP, 0.1}, nullptr), Error);
  EXPECT_THROW(make(SelectorKind::kGate, {Rule::kNzRatio, 1.5}, &f.gate), Error);
  EXPECT_THROW(make(SelectorKind::kGate, {Rule::kNzRatio, NAN}, &f.gate), Error);
}

TEST(Selectors, TheWholeDensityIsDense) {
  Fixture f;
  const PrefillResult dense = f.prefill(nullptr, 200);
  for (const SelectorKind kind : {SelectorKind::kDense, SelectorKind::kGate, SelectorKind::kOracle,
                                  SelectorKind::kLocal, SelectorKind::kRandom}) {
    const auto selector = make_selector(kind, {SparsityOptions::Rule::kAdaptive, 1.0}, f.config, &f.gate, 0);
    const PrefillResult result = f.prefill(selector.get(), 200);
    EXPECT_EQ(result.last_logits, dense.last_logits) << name_of(kind);
    EXPECT_EQ(result.stats.density(), 1.0);
  }
}

TEST(Selectors, TopKHasTheDensityOfItsRule) {
  Fixture f;
  const std::int64_t tokens = 1200, n = blocks_for(tokens), k = top_k_for_nz_ratio(0.4, n);
  std::int64_t kept = 0;
  for (std::int64_t row = 0; row < n; ++row) kept += std::min(row + 1, k);
  const double expected = static_cast<double>(kept) / static_cast<double>(n * (n + 1) / 2);
  for (const SelectorKind kind :
       {SelectorKind::kGate, SelectorKind::kOracle, SelectorKind::kLocal, SelectorKind::kRandom}) {
    const auto selector = make_selector(kind, {SparsityOptions::Rule::kNzRatio, 0.4}, f.config, &f.gate, 3);
    EXPECT_DOUBLE_EQ(f.prefill(selector.get(), tokens).stats.density(), expected) << name_of(kind);
  }
}

TEST(Selectors, TheOracleMeetsAnAdaptiveDensity) {
  Fixture f;
  const auto selector =
      make_selector(SelectorKind::kOracle, {SparsityOptions::Rule::kAdaptive, 0.3}, f.config, nullptr, 0);
  EXPECT_NEAR(f.prefill(selector.get(), 1500).stats.density(), 0.3, 0.01);
}

TEST(Selectors, AChunkedPrefillSelectsTheSameBlocks) {
  const std::int64_t tokens = 1000;
  using Rule = SparsityOptions::Rule;
  for (const SelectorKind kind : {SelectorKind::kGate, SelectorKind::kLocal, SelectorKind::kRandom}) {
    for (const SparsityOptions options :
         {SparsityOptions{Rule::kNzRatio, 0.4}, {Rule::kThreshold, 0.05}, {Rule::kTopP, 0.7}}) {
      if (kind != SelectorKind::kGate && options.rule != Rule::kNzRatio) continue;
      SCOPED_TRACE(std::string(name_of(kind)) + " " + std::string(name_of(options.rule)));
      Fixture whole(1024), chunked(128);
      const auto a = make_selector(kind, options, whole.config, &whole.gate, 3);
      const auto b = make_selector(kind, options, chunked.config, &chunked.gate, 3);
      Fixture::Recorder one(*a), many(*b);
      whole.prefill(&one, tokens);
      chunked.prefill(&many, tokens);
      ASSERT_EQ(one.rows.size(), many.rows.size());
      // Attention's own sums differ in their last bits between chunkings, and so may blocks that tie with a
      // cut.
      std::int64_t differing = 0, all = 0;
      for (const auto& [key, row] : one.rows) {
        const std::vector<bool>& other = many.rows.at(key);
        ASSERT_EQ(row.size(), other.size());
        for (std::size_t j = 0; j < row.size(); ++j) differing += row[j] != other[j];
        all += static_cast<std::int64_t>(row.size());
      }
      EXPECT_LE(differing, all / 1000);
    }
  }
}

}  // namespace
}  // namespace seer
