// Decoding with a decode gate on the GPU against the CPU's in float32.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "core/check.h"
#include "cuda_model/device_decode_gate.h"
#include "model_support.h"
#include "ops/block_mask.h"

namespace seer {
namespace {

using test::some_tokens;
using Rule = DecodeSparsity::Rule;

Buffer<float> random_weight(std::int64_t size, unsigned seed, float mean, float scale) {
  Buffer<float> weight(size);
  test::fill_normal({weight.data(), static_cast<std::size_t>(size)}, seed, scale);
  for (float& value : weight) value += mean;
  return weight;
}

DecodeGate random_gate(const ModelConfig& model, int dim, unsigned seed = 0) {
  DecodeGate gate;
  gate.gate_hidden_size = dim;
  for (int layer = 0; layer < model.num_layers; ++layer, seed += 4)
    gate.layers.push_back(
        {.q_weight = random_weight(std::int64_t{model.q_size()} * dim, seed, 0, 0.1f),
         .k_weight = random_weight(std::int64_t{3} * model.kv_size() * dim, seed + 1, 0, 0.1f),
         .q_norm = random_weight(dim, seed + 2, 1, 0.3f),
         .k_norm = random_weight(dim, seed + 3, 1, 0.3f)});
  return gate;
}

DecodeSparsity budget(const DecodeGate& gate, std::int64_t tokens) {
  return {.gate = &gate, .token_budget = tokens};
}

Sequence start(Transformer& model, const DecodeSparsity& sparsity, std::span<const std::int32_t> prompt) {
  Sequence sequence = model.new_sequence();
  if (sparsity.gate != nullptr)
    sequence.set_decode_selector(std::make_unique<DecodeSelector>(model.config(), sparsity));
  model.prefill(sequence, {.tokens = prompt});
  return sequence;
}

/// Decodes the tokens after the first `prompt`.
struct Decoded {
  Decoded(Transformer& model, const DecodeSparsity& sparsity, const std::vector<std::int32_t>& tokens,
          std::size_t prompt)
      : sequence(start(model, sparsity, std::span(tokens).first(prompt))) {
    std::vector<float> row(static_cast<std::size_t>(model.config().vocab_size), NAN);
    Sequence* const single[] = {&sequence};
    for (std::size_t i = prompt; i < tokens.size(); ++i) {
      model.decode(single, {&tokens[i], 1}, row.data());
      logits.insert(logits.end(), row.begin(), row.end());
      if (i + 1 == tokens.size()) break;
      double sum = 0;
      for (const float value : row) sum += std::exp(static_cast<double>(value));
      losses.push_back(static_cast<float>(std::log(sum) -
                                          static_cast<double>(row[static_cast<std::size_t>(tokens[i + 1])])));
    }
    density = model.decode_density(sequence);
  }

  Sequence sequence;
  std::vector<float> logits, losses;
  DecodeDensity density;
};

/// A layer's compressed keys of full blocks, [kv_heads, blocks, dim].
std::vector<float> host_keys(const Sequence& sequence, int layer) {
  const CompressedKeys& keys = sequence.decode_selector()->keys(layer);
  std::vector<float> all;
  for (int head = 0; head < keys.num_kv_heads(); ++head)
    for (std::int64_t block = 0; block < keys.num_blocks(); ++block)
      for (int d = 0; d < keys.dim(); ++d) all.push_back(keys.at(block, head, d));
  return all;
}

std::vector<float> device_keys(const Sequence& sequence, const ModelConfig& model, int layer) {
  DeviceDecodeState& state = DeviceDecodeState::of(*sequence.decode_selector(), model);
  const std::int64_t dim = state.gate().dim, blocks = sequence.length() / kBlockSize;
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(model.num_kv_heads * state.capacity() * dim));
  cuda::check(cudaMemcpy(bits.data(), state.keys(layer), 2 * bits.size(), cudaMemcpyDeviceToHost), "keys");
  std::vector<float> all(static_cast<std::size_t>(model.num_kv_heads * blocks * dim));
  for (std::int64_t head = 0; head < model.num_kv_heads; ++head)
    widen_to_float(DType::kBF16, bits.data() + head * state.capacity() * dim,
                   all.data() + head * blocks * dim, blocks * dim);
  return all;
}

/// Root of the mean square of a - b, over that of b.
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

class CudaDecodeGate : public CudaModel {};

TEST_F(CudaDecodeGate, DecodesAsTheCpu) {
  for (const std::string& folder : folders_) {
    for (const int dim : {0, 32}) {  // 0: the model's head_dim
      SCOPED_TRACE(folder + ", gate size " + std::to_string(dim));
      Both both(folder);
      const DecodeGate gate = random_gate(both.config, dim == 0 ? both.config.head_dim : dim);
      const auto tokens = some_tokens(800, both.config.vocab_size);
      for (const DecodeSparsity& sparsity :
           {budget(gate, 192), DecodeSparsity{.gate = &gate, .rule = Rule::kThreshold, .threshold = 0.08},
            DecodeSparsity{.gate = &gate, .token_budget = 320, .reference_rope = true}}) {
        const Decoded cpu(both.cpu, sparsity, tokens, 690), gpu(*both.gpu, sparsity, tokens, 690);
        EXPECT_EQ(gpu.density.total_blocks, cpu.density.total_blocks);
        EXPECT_NEAR(gpu.density.density(), cpu.density.density(), 0.1 * cpu.density.density());
        EXPECT_LT(gpu.density.density(), 0.8);
        for (int layer = 0; layer < both.config.num_layers; ++layer)
          EXPECT_LT(relative_difference(device_keys(gpu.sequence, both.config, layer),
                                        host_keys(cpu.sequence, layer)),
                    0.05)
              << "layer " << layer;
        expect_near_overall(gpu.losses, cpu.losses, 2e-2, 0.3);
      }
    }
  }
}

TEST_F(CudaDecodeGate, EveryBlockGivesTheBitsOfDense) {
  Both both(folders_.front());
  const DecodeGate gate = random_gate(both.config, both.config.head_dim);
  DecodeGate dense_layers = random_gate(both.config, both.config.head_dim);
  dense_layers.start_layer = both.config.num_layers;
  const auto tokens = some_tokens(400, both.config.vocab_size);
  const Decoded dense(*both.gpu, {}, tokens, 370);
  EXPECT_EQ(dense.density.density(), 1.0);
  for (const DecodeSparsity& sparsity : {budget(gate, 1 << 20), budget(dense_layers, 64),
                                         DecodeSparsity{.gate = &gate, .rule = Rule::kThreshold}}) {
    const Decoded run(*both.gpu, sparsity, tokens, 370);
    EXPECT_EQ(run.logits, dense.logits);
    EXPECT_EQ(run.density.density(), 1.0);
    EXPECT_GT(run.density.total_blocks, 0);
  }
}

TEST_F(CudaDecodeGate, KeysDoNotDependOnTheirWay) {
  Both both(folders_.front()), chunked(folders_.front(), DType::kBF16, 128);
  const DecodeGate gate = random_gate(both.config, both.config.head_dim);
  const auto tokens = some_tokens(520, both.config.vocab_size);
  const Decoded most(*both.gpu, budget(gate, 1 << 20), tokens, 510);
  for (const std::size_t prompt : {1, 63, 64, 300, 500}) {
    const Decoded decoded(*both.gpu, budget(gate, 1 << 20), tokens, prompt),
        in_chunks(*chunked.gpu, budget(gate, 1 << 20), tokens, prompt);
    for (int layer = 0; layer < both.config.num_layers; ++layer) {
      const auto expected = device_keys(most.sequence, both.config, layer);
      EXPECT_LT(relative_difference(device_keys(decoded.sequence, both.config, layer), expected), 0.05);
      EXPECT_LT(relative_difference(device_keys(in_chunks.sequence, both.config, layer), expected), 0.05);
    }
  }
}

TEST_F(CudaDecodeGate, KeysMoveWhereThereIsRoom) {
  Both both(folders_.front());
  const DecodeGate gate = random_gate(both.config, both.config.head_dim);
  const auto tokens = some_tokens(4300, both.config.vocab_size);
  const Decoded decoded(*both.gpu, budget(gate, 1 << 20), tokens, 10),
      whole(*both.gpu, budget(gate, 64), tokens, 4299);
  for (int layer = 0; layer < both.config.num_layers; ++layer)
    EXPECT_LT(relative_difference(device_keys(decoded.sequence, both.config, layer),
                                  device_keys(whole.sequence, both.config, layer)),
              0.05);
}

TEST_F(CudaDecodeGate, ARaggedBatchDecodesAsItsSequencesDoAlone) {
  Both both(folders_.front());
  const DecodeGate gate = random_gate(both.config, both.config.head_dim);
  const auto vocab = static_cast<std::size_t>(both.config.vocab_size);
  const auto tokens = some_tokens(800, both.config.vocab_size);
  const std::array<std::size_t, 3> prompts{20, 125, 700};
  std::vector<Sequence> together;
  std::vector<Sequence*> pointers;
  std::vector<Decoded> alone;
  for (const std::size_t prompt : prompts) {
    const std::vector<std::int32_t> seen(tokens.begin(),
                                         tokens.begin() + static_cast<std::ptrdiff_t>(prompt + 10));
    together.push_back(start(*both.gpu, budget(gate, 64), std::span(seen).first(prompt)));
    alone.emplace_back(*both.gpu, budget(gate, 64), seen, prompt);
  }
  for (Sequence& sequence : together) pointers.push_back(&sequence);
  std::vector<std::vector<float>> logits(3);
  for (std::size_t step = 0; step < 10; ++step) {
    std::vector<float> rows(3 * vocab, NAN);
    const std::array<std::int32_t, 3> next{tokens[prompts[0] + step], tokens[prompts[1] + step],
                                           tokens[prompts[2] + step]};
    both.gpu->decode(pointers, next, rows.data());
    for (std::size_t b = 0; b < 3; ++b)
      logits[b].insert(logits[b].end(), rows.begin() + static_cast<std::ptrdiff_t>(b * vocab),
                       rows.begin() + static_cast<std::ptrdiff_t>((b + 1) * vocab));
  }
  for (std::size_t b = 0; b < 3; ++b) {
    EXPECT_LT(relative_difference(logits[b], alone[b].logits), 0.05) << "sequence " << b;
    const DecodeDensity density = both.gpu->decode_density(together[b]);
    EXPECT_EQ(density.total_blocks, alone[b].density.total_blocks);
    EXPECT_NEAR(density.density(), alone[b].density.density(), 0.03);
  }
}

TEST_F(CudaDecodeGate, TheWayOfDecodingMayChange) {
  Both both(folders_.front());
  const DecodeGate one = random_gate(both.config, both.config.head_dim),
                   other = random_gate(both.config, 48, 100);
  const auto tokens = some_tokens(500, both.config.vocab_size);
  const std::array ways{budget(one, 64), budget(other, 64), budget(one, 192), DecodeSparsity{}};
  std::vector<std::vector<float>> first;
  for (const DecodeSparsity& way : ways) first.push_back(Decoded(*both.gpu, way, tokens, 450).logits);
  for (std::size_t i = ways.size(); i-- > 0;)
    EXPECT_EQ(Decoded(*both.gpu, ways[i], tokens, 450).logits, first[i]) << "way " << i;
  for (std::size_t i = 1; i < ways.size(); ++i) EXPECT_NE(first[i], first[0]) << "way " << i;
}

TEST_F(CudaDecodeGate, RefusesMixesAndGaps) {
  Both both(folders_.front());
  const DecodeGate gate = random_gate(both.config, both.config.head_dim), odd = random_gate(both.config, 24);
  const auto tokens = some_tokens(100, both.config.vocab_size);
  std::vector<float> logits(static_cast<std::size_t>(2 * both.config.vocab_size));
  Sequence a = start(*both.gpu, budget(gate, 64), tokens), b = start(*both.gpu, budget(gate, 128), tokens),
           dense = start(*both.gpu, {}, tokens);
  const std::array<std::int32_t, 2> next{1, 2};
  const auto decode = [&](std::vector<Sequence*> sequences) {
    both.gpu->decode(sequences, std::span(next).first(sequences.size()), logits.data());
  };
  EXPECT_THROW(decode({&a, &b}), Error);
  EXPECT_THROW(decode({&dense, &b}), Error);
  b.truncate(100);
  EXPECT_NO_THROW(decode({&b}));
  b.truncate(90);
  EXPECT_THROW(decode({&b}), Error);
  EXPECT_THROW(start(*both.gpu, budget(odd, 64), tokens), Error);
}

}  // namespace
}  // namespace seer
