#include "model/decode_selector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/check.h"
#include "io/tensor_file.h"
#include "model/cpu_transformer.h"
#include "support/compare.h"
#include "support/golden.h"

namespace seer {
namespace {

using Json = nlohmann::json;

Buffer<float> random_weight(std::int64_t size, unsigned seed) {
  Buffer<float> weight(size);
  test::fill_normal({weight.data(), static_cast<std::size_t>(size)}, seed, 0.3f);
  return weight;
}

DecodeGate random_gate(const ModelConfig& model, int dim) {
  DecodeGate gate;
  gate.gate_hidden_size = dim;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const auto seed = static_cast<unsigned>(4 * layer);
    gate.layers.push_back({.q_weight = random_weight(std::int64_t{model.q_size()} * dim, seed),
                           .k_weight = random_weight(std::int64_t{3} * model.kv_size() * dim, seed + 1),
                           .q_norm = random_weight(dim, seed + 2),
                           .k_norm = random_weight(dim, seed + 3)});
  }
  return gate;
}

DecodeSparsity budget(const DecodeGate& gate, std::int64_t tokens) {
  return {.gate = &gate, .token_budget = tokens};
}

/// The compressed keys of a layer, [blocks, num_kv_heads, dim].
std::vector<float> rows_of(const CompressedKeys& keys) {
  std::vector<float> rows;
  for (std::int64_t block = 0; block < keys.num_blocks(); ++block)
    for (int head = 0; head < keys.num_kv_heads(); ++head)
      for (int d = 0; d < keys.dim(); ++d) rows.push_back(keys.at(block, head, d));
  return rows;
}

// ---- golden data ----

struct GoldenCase {
  explicit GoldenCase(const std::filesystem::path& file)
      : store(TensorStore::open_safetensors(file.string())), json(Json::parse(store.metadata().at("case"))) {
    model.num_layers = 1;
    model.num_heads = json.at("Hq");
    model.num_kv_heads = json.at("Hk");
    model.head_dim = json.at("D");
    model.rope.theta = json.at("rope_theta");
    model.rope.max_position_embeddings = model.max_position_embeddings = 1 << 20;
    gate.gate_hidden_size = json.at("gate_hidden");
    gate.layers.push_back({.q_weight = buffer("attngate_linear_q.weight"),
                           .k_weight = buffer("attngate_linear_k.weight"),
                           .q_norm = buffer("attngate_qnorm.weight"),
                           .k_norm = buffer("attngate_knorm.weight")});
    prompt = json.at("S"), total = json.at("T");
    q = store.get("q").to_floats();
    k = store.get("k").to_floats();
    v = store.get("v").to_floats();
  }

  Buffer<float> buffer(const std::string& name) const {
    if (!store.contains(name)) return {};
    const std::vector<float> values = store.get(name).to_floats();
    Buffer<float> copy(static_cast<std::int64_t>(values.size()));
    std::copy(values.begin(), values.end(), copy.begin());
    return copy;
  }

  const float* query(std::int64_t position) const { return q.data() + (position - prompt) * model.q_size(); }
  const float* key(std::int64_t position) const { return k.data() + position * model.kv_size(); }

  /// Blocks that are full have a key; the expected entry of one that is not is zeros.
  void expect_keys(const CompressedKeys& keys, const std::string& name) const {
    const auto expected = store.get(name).as<float>();
    std::vector<float> rows = rows_of(keys);
    ASSERT_LE(rows.size(), expected.size());
    rows.resize(expected.size(), 0.0f);
    double largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(static_cast<double>(value)));
    // Rotary angles were rounded to float32 in the golden data.
    EXPECT_TRUE(test::all_close(rows, expected, 3e-5 * largest)) << name;
  }

  TensorStore store;
  Json json;
  ModelConfig model;
  DecodeGate gate;
  std::int64_t prompt = 0, total = 0;
  std::vector<float> q, k, v;
};

/// x [tokens, heads, head_dim] rotated at positions from `first` on.
std::vector<float> rotated(const ModelConfig& model, const float* x, std::int64_t tokens, int heads,
                           std::int64_t first) {
  const std::int64_t half = model.head_dim / 2, stride = std::int64_t{heads} * model.head_dim;
  std::vector<float> cos(static_cast<std::size_t>(tokens * half)), sin(cos.size()),
      out(static_cast<std::size_t>(tokens * stride));
  RopeTable(model.rope, model.head_dim, first + tokens).fill(first, 1, tokens, cos.data(), sin.data());
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t i = 0; i < stride; ++i) {
      const std::int64_t d = i % model.head_dim, at = t * half + d % half;
      const float partner = d < half ? -x[t * stride + i + half] : x[t * stride + i - half];
      out[static_cast<std::size_t>(t * stride + i)] =
          x[t * stride + i] * cos[static_cast<std::size_t>(at)] + partner * sin[static_cast<std::size_t>(at)];
    }
  return out;
}

/// Attention of the token at `position` to the tokens of the mask's blocks and of the first block, which the
/// reference's kernel always reads.
std::vector<float> attend(const GoldenCase& golden, const Context& context, std::int64_t position,
                          const BlockMask* selected) {
  const ModelConfig& model = golden.model;
  const std::int64_t tokens = position + 1;
  const auto pool = std::make_shared<KvPool>(model, DType::kF32);
  Sequence sequence(pool);
  sequence.extend(tokens);
  const PagedKv kv = pool->view(0, sequence);
  kv_store(context, kv, 0, tokens, rotated(model, golden.k.data(), tokens, model.num_kv_heads, 0).data(),
           golden.v.data());
  std::optional<BlockMask> mask;
  if (selected != nullptr) {
    mask = *selected;
    for (int head = 0; head < model.num_kv_heads; ++head) mask->set(head, 0, 0);
  }
  std::vector<float> out(static_cast<std::size_t>(model.q_size()), NAN);
  attention_decode(context, {.q = rotated(model, golden.query(position), 1, model.num_heads, position).data(),
                             .out = out.data(),
                             .num_heads = model.num_heads,
                             .scale = 1.0f / std::sqrt(static_cast<float>(model.head_dim)),
                             .kv = {&kv, 1},
                             .mask = mask ? mask->row(0, 0) : nullptr,
                             .mask_words = mask ? mask->words() : 0});
  return out;
}

/// The gate's probabilities of the token at `position`, by the keys that the selector has then.
std::vector<float> probabilities(const GoldenCase& golden, const Context& context, std::int64_t position,
                                 const CompressedKeys& keys) {
  const int dim = golden.gate.gate_hidden_size, heads = golden.model.num_kv_heads;
  std::vector<float> cos(static_cast<std::size_t>(dim / 2)), sin(cos.size()),
      query(static_cast<std::size_t>(heads * dim), NAN),
      out(static_cast<std::size_t>(heads * blocks_for(position + 1)), NAN);
  RopeTable(golden.model.rope, dim, position + 1).fill(position, 1, 1, cos.data(), sin.data());
  decode_gate_query(context, golden.gate.params(golden.model, 0), golden.query(position), cos.data(),
                    sin.data(), query.data());
  decode_gate_probabilities(context, query.data(), keys, blocks_for(position + 1), out.data());
  return out;
}

TEST(GoldenDecode, KeysProbabilitiesMasksAndOutputs) {
  const auto files = test::golden_files("decode", ".safetensors");
  if (files.empty()) GTEST_SKIP() << "no golden decode cases";
  for (const auto& file : files) {
    for (const CpuIsa isa : available_cpu_isas()) {
      const GoldenCase golden(file);
      const Context context(1, isa);
      int masks = 0;
      for (const auto& [name, tensor] : golden.store.tensors()) {
        if (!name.starts_with("mask_")) continue;
        SCOPED_TRACE(file.filename().string() + " on " + std::string(name_of(isa)) + ": " + name);
        ++masks;
        const std::size_t split = name.rfind('_');
        const std::string step = name.substr(split + 1);
        const std::int64_t position = std::stoll(step);
        DecodeSparsity sparsity{.gate = &golden.gate, .reference_rope = true};
        if (name.starts_with("mask_budget")) {
          sparsity.token_budget = std::stoll(name.substr(11, split - 11));
        } else {
          sparsity.rule = DecodeSparsity::Rule::kThreshold;
          sparsity.threshold = golden.json.at("thresholds").at(step).at("value");
        }
        DecodeSelector selector(golden.model, sparsity);
        selector.begin(golden.prompt);
        selector.add_prompt(context, 0, 0, golden.prompt, golden.k.data());
        golden.expect_keys(selector.keys(0), "k_compressed_" + std::to_string(golden.prompt));
        const BlockMask* mask = nullptr;
        for (std::int64_t p = golden.prompt; p <= position; ++p)
          mask = selector.select(context, 0, p, golden.query(p), golden.key(p));
        if (golden.store.contains("k_compressed_" + step))
          golden.expect_keys(selector.keys(0), "k_compressed_" + step);
        EXPECT_TRUE(test::all_close(probabilities(golden, context, position, selector.keys(0)),
                                    golden.store.get("probs_" + step).as<float>(), 1e-5));
        const auto bits = tensor.as<std::uint8_t>();
        const std::int64_t blocks = blocks_for(position + 1);
        for (std::int64_t i = 0; i < golden.model.num_kv_heads * blocks; ++i) {
          const int head = static_cast<int>(i / blocks);
          EXPECT_EQ(mask == nullptr || mask->test(head, 0, i % blocks),
                    bits[static_cast<std::size_t>(i)] != 0)
              << "head " << head << " block " << i % blocks;
        }
        const std::string out = "out_" + name.substr(5);
        if (golden.store.contains(out)) {
          EXPECT_TRUE(test::all_close(attend(golden, context, position, mask),
                                      golden.store.get(out).as<float>(), 1e-4));
        }
      }
      EXPECT_GT(masks, 0);
    }
  }
}

// ---- keys ----

ModelConfig small_model() {
  ModelConfig model;
  model.num_layers = 2;
  model.num_heads = 6;
  model.num_kv_heads = 2;
  model.head_dim = 16;
  model.max_position_embeddings = model.rope.max_position_embeddings = 4096;
  return model;
}

TEST(DecodeSelector, KeysGrowToTheBitsOfAPrompts) {
  const ModelConfig model = small_model();
  const DecodeGate gate = random_gate(model, 24);
  const Context context(1);
  const std::int64_t total = 64 * 4;
  std::vector<float> k(static_cast<std::size_t>(total * model.kv_size())),
      q(static_cast<std::size_t>(model.q_size()));
  test::fill_normal(k, 1);
  test::fill_normal(q, 2);
  DecodeSelector whole(model, budget(gate, 64));
  whole.begin(total);
  for (int layer = 0; layer < 2; ++layer) whole.add_prompt(context, layer, 0, total, k.data());
  ASSERT_EQ(whole.keys(1).num_blocks(), 4);
  for (const std::int64_t prompt : {1, 63, 64, 100, 128, 255}) {
    DecodeSelector grown(model, budget(gate, 64)),
        reference = DecodeSelector(model, {.gate = &gate, .token_budget = 64, .reference_rope = true});
    for (DecodeSelector* selector : {&grown, &reference}) {
      selector->begin(prompt);
      for (std::int64_t first = 0; first < prompt; first += 64)  // chunk by chunk
        for (int layer = 0; layer < 2; ++layer)
          selector->add_prompt(context, layer, first, std::min<std::int64_t>(64, prompt - first),
                               k.data() + first * model.kv_size());
      for (std::int64_t p = prompt; p < total; ++p)
        for (int layer = 0; layer < 2; ++layer) {
          const BlockMask* mask =
              selector->select(context, layer, p, q.data(), k.data() + p * model.kv_size());
          const std::int64_t last = p / 64;
          if (last == 0) {
            ASSERT_EQ(mask, nullptr);
            continue;
          }
          ASSERT_NE(mask, nullptr);
          for (int head = 0; head < model.num_kv_heads; ++head) {
            ASSERT_TRUE(mask->test(head, 0, last));
            ASSERT_LE(mask->count(head, 0), 2);
          }
        }
    }
    for (int layer = 0; layer < 2; ++layer) {
      EXPECT_EQ(rows_of(grown.keys(layer)), rows_of(whole.keys(layer))) << "prompt of " << prompt;
      EXPECT_NE(rows_of(reference.keys(layer)), rows_of(whole.keys(layer))) << "prompt of " << prompt;
    }
  }
}

TEST(DecodeSelector, RefusesGapsAndOptionsOutOfRange) {
  const ModelConfig model = small_model();
  DecodeGate gate = random_gate(model, 24);
  const Context context(1);
  std::vector<float> x(static_cast<std::size_t>(64 * model.q_size()), 1.0f);
  DecodeSelector selector(model, budget(gate, 64));
  selector.begin(10);
  selector.add_prompt(context, 0, 0, 10, x.data());
  EXPECT_THROW(selector.add_prompt(context, 0, 10, 1, x.data()), Error);
  EXPECT_THROW(selector.select(context, 0, 11, x.data(), x.data()), Error);
  EXPECT_THROW(selector.select(context, 1, 10, x.data(), x.data()), Error);
  EXPECT_NO_THROW(selector.select(context, 0, 10, x.data(), x.data()));
  EXPECT_THROW(DecodeSelector(model, budget(gate, 63)), Error);
  EXPECT_THROW(
      DecodeSelector(model, {.gate = &gate, .rule = DecodeSparsity::Rule::kThreshold, .threshold = -0.1}),
      Error);
  EXPECT_THROW(
      DecodeSelector(model, {.gate = &gate, .rule = DecodeSparsity::Rule::kThreshold, .threshold = NAN}),
      Error);
  gate.layers.pop_back();
  EXPECT_THROW(DecodeSelector(model, budget(gate, 64)), Error);
}

// ---- in the model ----

/// Decodes `count` tokens after a prompt of `prompt_tokens`, in float32; the logits of every step. Sequences
/// of one batch decode by `options` each.
struct DecodeRun {
  std::vector<std::vector<float>> logits;  // [sequence][steps * vocab]
  std::vector<double> densities;
};
DecodeRun decode(std::int64_t prompt_tokens, std::int64_t count, const std::vector<DecodeSparsity>& options) {
  const auto folder = test::golden_path("tiny-qwen2");
  const ModelConfig config = load_model_config(folder.string());
  CpuTransformer model(std::make_shared<ModelWeights>(ModelWeights::load(folder.string(), config)), config,
                       Context(1), {.kv_dtype = DType::kF32, .allow_bf16 = false});
  std::vector<std::int32_t> prompt(static_cast<std::size_t>(prompt_tokens));
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] =
        static_cast<std::int32_t>((i * i * 31 + i * 7 + 3) % static_cast<std::size_t>(config.vocab_size));
  std::vector<Sequence> sequences;
  std::vector<Sequence*> pointers;
  for (const DecodeSparsity& sparsity : options) {
    sequences.push_back(model.new_sequence());
    if (sparsity.gate != nullptr)
      sequences.back().set_decode_selector(std::make_unique<DecodeSelector>(config, sparsity));
    model.prefill(sequences.back(), {.tokens = prompt});
  }
  for (Sequence& sequence : sequences) pointers.push_back(&sequence);
  const auto vocab = static_cast<std::size_t>(config.vocab_size);
  DecodeRun run{.logits = std::vector<std::vector<float>>(options.size())};
  for (std::int64_t i = 0; i < count; ++i) {
    const std::vector<std::int32_t> tokens(options.size(), static_cast<std::int32_t>(i * 5 + 1));
    std::vector<float> logits(options.size() * vocab, NAN);
    model.decode(pointers, tokens, logits.data());
    for (std::size_t b = 0; b < options.size(); ++b)
      run.logits[b].insert(run.logits[b].end(), logits.begin() + static_cast<std::ptrdiff_t>(b * vocab),
                           logits.begin() + static_cast<std::ptrdiff_t>((b + 1) * vocab));
  }
  for (const Sequence& sequence : sequences)
    run.densities.push_back(
        sequence.decode_selector() == nullptr ? 1.0 : sequence.decode_selector()->density().density());
  return run;
}

TEST(SparseDecode, EveryBlockGivesTheBitsOfDense) {
  const ModelConfig config = load_model_config(test::golden_path("tiny-qwen2").string());
  DecodeGate gate = random_gate(config, 32), dense_layers = random_gate(config, 32);
  dense_layers.start_layer = config.num_layers;
  // A budget that holds all blocks needs no mask; a threshold of 0 makes a mask of all blocks.
  const DecodeRun run = decode(250, 10,
                               {{},
                                budget(gate, 1 << 20),
                                {.gate = &gate, .rule = DecodeSparsity::Rule::kThreshold},
                                budget(dense_layers, 64)});
  for (std::size_t b = 0; b < 4; ++b) {
    EXPECT_EQ(run.densities[b], 1.0);
    EXPECT_TRUE(std::isfinite(run.logits[b][0]));
    EXPECT_EQ(0,
              std::memcmp(run.logits[b].data(), run.logits[0].data(), run.logits[0].size() * sizeof(float)))
        << "sequence " << b;
  }
}

TEST(SparseDecode, ASequenceDoesNotDependOnItsCompany) {
  const ModelConfig config = load_model_config(test::golden_path("tiny-qwen2").string());
  const DecodeGate gate = random_gate(config, 32);
  const DecodeRun both = decode(250, 10, {{}, budget(gate, 64)}),
                  sparse = decode(250, 10, {budget(gate, 64)}), dense = decode(250, 10, {{}});
  EXPECT_EQ(both.logits[0], dense.logits[0]);
  EXPECT_EQ(both.logits[1], sparse.logits[0]);
  EXPECT_EQ(both.densities[1], sparse.densities[0]);
  // 4 or 5 blocks, of which 1 or 2 are read.
  EXPECT_GT(sparse.densities[0], 0.2);
  EXPECT_LT(sparse.densities[0], 0.5);
  EXPECT_GT(test::max_difference(sparse.logits[0], dense.logits[0]), 1e-4);
}

}  // namespace
}  // namespace seer
