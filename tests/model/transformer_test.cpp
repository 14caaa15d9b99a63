#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/check.h"
#include "model/cpu_transformer.h"
#include "support/compare.h"
#include "support/errors.h"
#include "support/golden.h"
#include "support/inputs.h"

namespace seer {
namespace {

using test::all_close;
using test::some_tokens;

/// A model folder of the golden data, run in float32 throughout.
struct TinyModel {
  explicit TinyModel(const std::filesystem::path& folder, const Context& context = Context(),
                     TransformerOptions options = {.kv_dtype = DType::kF32, .allow_bf16 = false})
      : config(load_model_config(folder)),
        weights(std::make_shared<ModelWeights>(ModelWeights::load(folder, config))),
        transformer(weights, config, context, options) {}

  ModelConfig config;
  std::shared_ptr<ModelWeights> weights;
  CpuTransformer transformer;

  /// Logits [tokens, vocab] of a prefill; NaN where none were given.
  std::vector<float> logits(std::span<const std::int32_t> tokens, Selector* selector = nullptr) {
    std::vector<float> all(tokens.size() * static_cast<std::size_t>(config.vocab_size), NAN);
    Sequence sequence = transformer.new_sequence();
    transformer.prefill(
        sequence, {.tokens = tokens,
                   .selector = selector,
                   .on_logits = [&](std::int64_t first, std::int64_t rows, const float* values) {
                     std::copy_n(values, rows * config.vocab_size, all.data() + first * config.vocab_size);
                   }});
    return all;
  }
};

std::vector<std::filesystem::path> tiny_models() {
  std::vector<std::filesystem::path> folders;
  for (const auto& file : test::golden_files("tiny-*", "expected.safetensors"))
    folders.push_back(file.parent_path());
  return folders;
}

TEST(Transformer, GoldenLogits) {
  if (tiny_models().empty()) GTEST_SKIP() << "no golden tiny models";
  for (const auto& folder : tiny_models()) {
    const TensorStore expected = TensorStore::open_safetensors(folder / "expected.safetensors");
    const auto tokens = expected.get("input_ids").as<std::int32_t>();
    const auto logits = expected.get("logits").as<float>();
    const double tolerance = 2e-3 * test::standard_deviation(logits);
    for (const CpuIsa isa : available_cpu_isas()) {
      SCOPED_TRACE(folder.string() + " on " + std::string(name_of(isa)));
      TinyModel model(folder, Context(2, isa));
      EXPECT_TRUE(all_close(model.logits(tokens), logits, tolerance));
    }
  }
}

TEST(Transformer, ChunksAndDecodeGiveTheLogitsOfOneShot) {
  if (tiny_models().empty()) GTEST_SKIP() << "no golden tiny models";
  for (const auto& folder : tiny_models()) {
    SCOPED_TRACE(folder.string());
    TinyModel one(folder);
    const auto vocab = static_cast<std::size_t>(one.config.vocab_size);
    const auto tokens = some_tokens(333, one.config.vocab_size);
    const auto expected = one.logits(tokens);
    const double tolerance = 1e-4 * test::standard_deviation(expected);

    TinyModel chunked(folder, Context(1), {.kv_dtype = DType::kF32, .allow_bf16 = false, .chunk_tokens = 64});
    EXPECT_TRUE(all_close(chunked.logits(tokens), expected, tolerance));

    // Two sequences of different lengths, decoded together.
    Sequence a = one.transformer.new_sequence(), b = one.transformer.new_sequence();
    const std::span all(tokens);
    one.transformer.prefill(a, {.tokens = all.first(300)});
    one.transformer.prefill(b, {.tokens = all.first(127)});
    std::vector<float> logits(2 * vocab);
    for (std::size_t step = 0; step < 33; ++step) {
      std::array<Sequence*, 2> sequences{&a, &b};
      const std::array<std::int32_t, 2> next{tokens[300 + step], tokens[127 + step]};
      std::fill(logits.begin(), logits.end(), NAN);
      one.transformer.decode(sequences, next, logits.data());
      EXPECT_TRUE(all_close(std::span(logits).first(vocab),
                            std::span(expected).subspan((300 + step) * vocab, vocab), tolerance));
      EXPECT_TRUE(all_close(std::span(logits).last(vocab),
                            std::span(expected).subspan((127 + step) * vocab, vocab), tolerance));
    }
  }
}

TEST(Transformer, SameBitsForAnyNumberOfThreads) {
  if (tiny_models().empty()) GTEST_SKIP() << "no golden tiny models";
  TinyModel one(tiny_models().front(), Context(1)), three(tiny_models().front(), Context(3));
  const auto tokens = some_tokens(200, one.config.vocab_size);
  EXPECT_EQ(one.logits(tokens), three.logits(tokens));
}

TEST(Transformer, Bfloat16CacheStaysNear) {
  if (tiny_models().empty()) GTEST_SKIP() << "no golden tiny models";
  TinyModel exact(tiny_models().front());
  TinyModel rounded(tiny_models().front(), Context(), {.kv_dtype = DType::kBF16, .allow_bf16 = true});
  const auto tokens = some_tokens(200, exact.config.vocab_size);
  const auto expected = exact.logits(tokens);
  // Keys and values keep 8 bits; measured 0.03 of the standard deviation at most.
  EXPECT_TRUE(all_close(rounded.logits(tokens), expected, 0.1 * test::standard_deviation(expected)));
}

TEST(Transformer, RefusesPromptsThatDoNotFit) {
  if (tiny_models().empty()) GTEST_SKIP() << "no golden tiny models";
  TinyModel model(tiny_models().front(), Context(),
                  {.kv_dtype = DType::kF32, .allow_bf16 = false, .max_context = 100});
  Sequence sequence = model.transformer.new_sequence();
  EXPECT_TRUE(
      test::error_names([&] { model.transformer.prefill(sequence, {.tokens = some_tokens(101, 300)}); },
                        {"101", "--max-context"}));
  EXPECT_THROW(model.transformer.prefill(sequence, {.tokens = {}}), Error);
}

TEST(KvCache, PagesAreReusedAndZeroed) {
  ModelConfig config;
  config.num_layers = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  auto pool = std::make_shared<KvPool>(config, DType::kF32);
  const std::int64_t page_floats = pool->page_bytes() / 4;
  {
    Sequence sequence(pool);
    sequence.extend(65);
    EXPECT_EQ(pool->bytes_reserved(), 2 * pool->page_bytes());
    auto* values = reinterpret_cast<float*>(pool->view(0, sequence).k_tile(1, 0));
    std::fill_n(values, page_floats, NAN);
  }
  Sequence sequence(pool);
  sequence.extend(128);
  EXPECT_EQ(pool->bytes_reserved(), 2 * pool->page_bytes());
  for (std::int64_t block = 0; block < 2; ++block) {
    const auto* values = reinterpret_cast<const float*>(pool->view(0, sequence).k_tile(block, 0));
    EXPECT_TRUE(std::all_of(values, values + page_floats, [](float x) { return x == 0; }));
  }
  sequence.truncate(3);
  EXPECT_EQ(sequence.length(), 3);
}

}  // namespace
}  // namespace seer
