// The forward pass on the GPU against the CPU's in float32.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "core/check.h"
#include "model/sampler.h"
#include "model_support.h"

namespace seer {
namespace {

using test::some_tokens;

TEST_F(CudaModel, LossesAreThoseOfTheCpu) {
  for (const std::string& folder : folders_) {
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      SCOPED_TRACE(folder + " " + std::string(name_of(dtype)));
      Both both(folder, dtype);
      for (const std::int64_t length : {2, 63, 64, 65, 333}) {
        const auto tokens = some_tokens(length, both.config.vocab_size);
        expect_near(Both::losses(*both.gpu, tokens), Both::losses(both.cpu, tokens),
                    dtype == DType::kBF16 ? 1e-2 : 2e-3, dtype == DType::kBF16 ? 0.3 : 0.05);
      }
    }
  }
}

TEST_F(CudaModel, EmbeddedModelIsThatOfTheCpu) {
  Both both(test::embedded_model().string());
  const auto tokens = some_tokens(3000, both.config.vocab_size);
  expect_near(Both::losses(*both.gpu, tokens), Both::losses(both.cpu, tokens), 1e-3, 1.0);
}

TEST_F(CudaModel, ChunksGiveTheLossesOfOneShot) {
  for (const std::string& folder : folders_) {
    SCOPED_TRACE(folder);
    Both whole(folder), chunked(folder, DType::kBF16, 128);
    const auto tokens = some_tokens(700, whole.config.vocab_size);
    expect_near(Both::losses(*chunked.gpu, tokens), Both::losses(*whole.gpu, tokens), 2e-3, 0.1);
  }
}

TEST_F(CudaModel, DecodingContinuesAPrefill) {
  for (const std::string& folder : folders_) {
    SCOPED_TRACE(folder);
    Both both(folder);
    const auto vocab = static_cast<std::size_t>(both.config.vocab_size);
    const auto tokens = some_tokens(333, both.config.vocab_size);
    const std::span<const std::int32_t> all(tokens);
    Sequence a = both.gpu->new_sequence(), b = both.gpu->new_sequence();
    both.gpu->prefill(a, {.tokens = all.first(300)});
    both.gpu->prefill(b, {.tokens = all.first(127)});
    const std::vector<float> expected = Both::losses(both.cpu, tokens);
    std::vector<float> logits(2 * vocab, NAN), a_losses, b_losses, a_expected, b_expected;
    const auto loss = [&](std::size_t row, std::int32_t target) {
      const auto values = std::span(logits).subspan(row * vocab, vocab);
      double sum = 0;
      for (const float value : values) sum += std::exp(static_cast<double>(value));
      return static_cast<float>(std::log(sum) - values[static_cast<std::size_t>(target)]);
    };
    for (std::size_t step = 0; step < 32; ++step) {
      const std::array<Sequence*, 2> sequences{&a, &b};
      both.gpu->decode(sequences, std::array{tokens[300 + step], tokens[127 + step]}, logits.data());
      a_losses.push_back(loss(0, tokens[301 + step]));
      b_losses.push_back(loss(1, tokens[128 + step]));
      a_expected.push_back(expected[300 + step]);
      b_expected.push_back(expected[127 + step]);
    }
    expect_near(a_losses, a_expected, 1e-2, 0.3);
    expect_near(b_losses, b_expected, 1e-2, 0.3);
    // Greedy steps follow the logits; five sequences take another path of products than two.
    std::array<std::int32_t, 2> greedy{}, next{};
    const std::array<Sequence*, 2> sequences{&a, &b};
    const std::array<std::int32_t, 2> last{tokens[0], tokens[1]};
    both.gpu->decode(sequences, last, logits.data());
    for (std::size_t row = 0; row < 2; ++row)
      greedy[row] = static_cast<std::int32_t>(
          std::max_element(logits.begin() + static_cast<std::ptrdiff_t>(row * vocab),
                           logits.begin() + static_cast<std::ptrdiff_t>((row + 1) * vocab)) -
          logits.begin() - static_cast<std::ptrdiff_t>(row * vocab));
    a.truncate(a.length() - 1);
    b.truncate(b.length() - 1);
    both.gpu->decode_greedy(sequences, last, next.data());
    EXPECT_EQ(next, greedy);
  }
}

TEST_F(CudaModel, DrawsTokensFromTheLogitsThatItGives) {
  Both both(folders_.front());
  const auto vocab = static_cast<std::size_t>(both.config.vocab_size);
  const auto tokens = some_tokens(200, both.config.vocab_size);
  std::vector<Sequence> owned;
  std::vector<Sequence*> sequences;
  for (const std::size_t length : {70, 200, 128}) {
    owned.push_back(both.gpu->new_sequence());
    both.gpu->prefill(owned.back(), {.tokens = std::span(tokens).first(length)});
  }
  for (Sequence& sequence : owned) sequences.push_back(&sequence);
  std::vector<float> logits(owned.size() * vocab);
  std::vector<std::int32_t> last{tokens[0], tokens[1], tokens[2]}, next(owned.size());
  for (int step = 0; step < 4; ++step) {  // the first without a graph, the others with one for all draws
    const double uniform = 0.23 + 0.2 * step;
    const std::vector<TokenDraw> draws{{.uniform = uniform, .temperature = 1.5f},
                                       {},
                                       {.uniform = uniform, .temperature = 1, .top_p = 0.9f, .top_k = 40}};
    both.gpu->decode_drawn(sequences, last, draws, next.data());
    for (Sequence& sequence : owned) sequence.truncate(sequence.length() - 1);
    both.gpu->decode(sequences, last, logits.data());
    for (std::size_t i = 0; i < owned.size(); ++i)
      EXPECT_EQ(next[i], draw_token(std::span(logits).subspan(i * vocab, vocab), draws[i])) << step;
    last = next;
  }
}

TEST_F(CudaModel, ManySequencesDecodeAsTheyDoAlone) {
  Both both(folders_.front());
  const auto vocab = static_cast<std::size_t>(both.config.vocab_size);
  constexpr std::size_t kBatch = 7;
  const auto tokens = some_tokens(400, both.config.vocab_size);
  std::vector<Sequence> together, alone;
  std::vector<Sequence*> pointers;
  std::vector<std::int32_t> next;
  for (std::size_t i = 0; i < kBatch; ++i) {
    together.push_back(both.gpu->new_sequence());
    alone.push_back(both.gpu->new_sequence());
    const auto prompt = std::span<const std::int32_t>(tokens).first(20 + 37 * i);
    both.gpu->prefill(together.back(), {.tokens = prompt});
    both.gpu->prefill(alone.back(), {.tokens = prompt});
    next.push_back(tokens[i]);
  }
  for (Sequence& sequence : together) pointers.push_back(&sequence);
  std::vector<float> logits(kBatch * vocab), one(vocab);
  for (int step = 0; step < 4; ++step) {
    both.gpu->decode(pointers, next, logits.data());
    for (std::size_t i = 0; i < kBatch; ++i) {
      Sequence* const single[] = {&alone[i]};
      both.gpu->decode(single, {&next[i], 1}, one.data());
      double largest = 0;
      for (std::size_t v = 0; v < vocab; ++v)
        largest = std::max(largest, std::abs(static_cast<double>(one[v]) - logits[i * vocab + v]));
      EXPECT_LT(largest, 0.15) << "sequence " << i;
      next[i] = static_cast<std::int32_t>((next[i] + 5) % static_cast<std::int32_t>(vocab));
    }
  }
}

TEST_F(CudaModel, SelectorsKeepTheBlocksOfTheCpu) {
  using Rule = SparsityOptions::Rule;
  Both both(test::golden_path("tiny-qwen2").string());
  const Gate gate = make_gate(both.config);
  const auto tokens = some_tokens(1500, both.config.vocab_size);
  const std::vector<std::pair<SelectorKind, SparsityOptions>> cases{
      {SelectorKind::kGate, {Rule::kNzRatio, 0.3}},      {SelectorKind::kGate, {Rule::kThreshold, 0.03}},
      {SelectorKind::kGate, {Rule::kTopP, 0.7}},         {SelectorKind::kGate, {Rule::kResidual, 0.01, true}},
      {SelectorKind::kOracle, {Rule::kAdaptive, 0.3}},   {SelectorKind::kOracle, {Rule::kNzRatio, 0.3}},
      {SelectorKind::kLocal, {Rule::kAdaptive, 0.3}},    {SelectorKind::kRandom, {Rule::kNzRatio, 0.3}},
      {SelectorKind::kOracle, {Rule::kThreshold, 0.02}}, {SelectorKind::kGate, {Rule::kAdaptive, 1.0}}};
  for (const auto& [kind, sparsity] : cases) {
    SCOPED_TRACE(std::string(name_of(kind)) + " " + std::string(name_of(sparsity.rule)));
    const auto on_cpu = make_selector(kind, sparsity, both.config, &gate, 5);
    const auto on_gpu = make_selector(kind, sparsity, both.config, &gate, 5);
    PrefillStats cpu, gpu;
    const auto expected = Both::losses(both.cpu, tokens, on_cpu.get(), &cpu);
    const auto actual = Both::losses(*both.gpu, tokens, on_gpu.get(), &gpu);
    EXPECT_EQ(gpu.causal_blocks, cpu.causal_blocks);
    if (sparsity.rule == Rule::kNzRatio)
      EXPECT_EQ(gpu.selected_blocks, cpu.selected_blocks);
    else
      EXPECT_NEAR(gpu.density(), cpu.density(), 0.03 * cpu.density());
    expect_near_overall(actual, expected, 1e-2, 0.15);
  }
}

/// Keeps what it is shown, by layer and row.
struct Recorder final : LayerObserver {
  explicit Recorder(ObserverWants wanted) : wanted_(wanted) {}
  ObserverWants wants() const override { return wanted_; }
  void observe(const LayerObservation& seen) override {
    for (std::int64_t row = 0; row < seen.rows; ++row) {
      auto& kept = rows[{seen.layer, seen.first_row + row}];
      if (seen.q_pooled != nullptr)
        kept.insert(kept.end(), seen.q_pooled + row * 256, seen.q_pooled + (row + 1) * 256);
      if (seen.k_pooled != nullptr)
        kept.insert(kept.end(), seen.k_pooled + row * 192, seen.k_pooled + (row + 1) * 192);
      if (seen.target != nullptr)
        for (std::int64_t head = 0; head < 4; ++head) {
          const float* target = seen.target + (head * seen.rows + row) * seen.target_stride;
          kept.insert(kept.end(), target, target + seen.first_row + row + 1);
        }
      if (seen.mask != nullptr)
        for (std::int64_t j = 0; j <= seen.first_row + row; ++j) kept.push_back(seen.mask->test(0, row, j));
    }
  }
  ObserverWants wanted_;
  std::map<std::pair<int, std::int64_t>, std::vector<float>> rows;
};

TEST_F(CudaModel, ObserversSeeWhatTheySeeOnTheCpu) {
  Both both(test::golden_path("tiny-qwen2").string());  // 4 heads, 1 KV head of 64
  const auto tokens = some_tokens(900, both.config.vocab_size);
  const auto watch = [&](Transformer& model, ObserverWants wants, Selector* selector) {
    Recorder recorder(wants);
    Sequence sequence = model.new_sequence();
    model.prefill(sequence, {.tokens = tokens, .selector = selector, .observer = &recorder});
    return recorder.rows;
  };
  const ObserverWants pooled{.target = true, .q_pools = kPoolAvg, .k_pools = kPoolMax | kPoolMin | kPoolAvg};
  const auto expected = watch(both.cpu, pooled, nullptr), actual = watch(*both.gpu, pooled, nullptr);
  ASSERT_EQ(actual.size(), expected.size());
  double difference = 0, size = 0;
  for (const auto& [key, row] : expected) {
    const auto& other = actual.at(key);
    ASSERT_EQ(other.size(), row.size());
    for (std::size_t i = 0; i < row.size(); ++i) {
      difference += (row[i] - other[i]) * (row[i] - other[i]);
      size += row[i] * row[i];
    }
  }
  EXPECT_LT(std::sqrt(difference / size), 0.02);

  const SparsityOptions sparsity{SparsityOptions::Rule::kNzRatio, 0.4};
  const auto a = make_selector(SelectorKind::kRandom, sparsity, both.config, nullptr, 9);
  const auto b = make_selector(SelectorKind::kRandom, sparsity, both.config, nullptr, 9);
  EXPECT_EQ(watch(*both.gpu, {.mask = true}, a.get()), watch(both.cpu, {.mask = true}, b.get()));
}

TEST_F(CudaModel, RefusesWhatTheCpuRefuses) {
  Both both(folders_.front());
  Sequence sequence = both.gpu->new_sequence();
  EXPECT_THROW(both.gpu->prefill(sequence, {.tokens = some_tokens(8193, 300)}), Error);
  EXPECT_THROW(both.gpu->prefill(sequence, {.tokens = {}}), Error);
  const std::vector<std::int32_t> outside{1, 1 << 20};
  EXPECT_THROW(both.gpu->prefill(sequence, {.tokens = outside}), Error);
}

TEST_F(CudaModel, TheSameBitsEveryTime) {
  Both both(test::embedded_model().string());
  const Gate gate = make_gate(both.config);
  const auto tokens = some_tokens(5000, both.config.vocab_size);
  std::vector<float> first;
  for (int run = 0; run < 5; ++run) {
    const auto selector =
        make_selector(SelectorKind::kGate, {SparsityOptions::Rule::kResidual, 0.002}, both.config, &gate, 0);
    std::vector<float> losses = Both::losses(*both.gpu, tokens, selector.get());
    if (run == 0)
      first = std::move(losses);
    else
      EXPECT_EQ(losses, first);
  }
}

}  // namespace
}  // namespace seer
