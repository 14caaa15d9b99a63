#include "model/shapes.h"

#include <gtest/gtest.h>

#include <string>

#include "core/check.h"
#include "support/errors.h"

namespace seer {
namespace {

std::int64_t num_parameters(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size, q = config.q_size(), kv = config.kv_size();
  const std::int64_t attention = 2 * hidden * q + 2 * hidden * kv + (config.attention_bias ? q + 2 * kv : 0) +
                                 (config.qk_norm ? 2 * config.head_dim : 0);
  const std::int64_t mlp = 3 * hidden * config.intermediate_size;
  const std::int64_t embeddings = (config.tie_word_embeddings ? 1 : 2) * config.vocab_size * hidden;
  return config.num_layers * (attention + mlp + 2 * hidden) + embeddings + hidden;
}

// The numbers of parameters that the models are published with.
TEST(NamedShape, HasTheModelsNumberOfParameters) {
  EXPECT_EQ(num_parameters(named_shape("llama-3.1-8b")), 8030261248);
  EXPECT_EQ(num_parameters(named_shape("qwen2.5-7b")), 7615616512);
  EXPECT_EQ(num_parameters(named_shape("qwen3-8b")), 8190735360);
}

TEST(NamedShape, HeadsAndPositions) {
  const ModelConfig llama = named_shape("llama-3.1-8b");
  EXPECT_EQ(llama.num_heads / llama.num_kv_heads, 4);
  EXPECT_EQ(llama.rope.type, RopeType::kLlama3);
  EXPECT_EQ(llama.rope.theta, 500000.0);
  EXPECT_EQ(llama.rope.factor, 8.0);
  EXPECT_EQ(llama.rope.original_max_position_embeddings, 8192);
  const ModelConfig qwen2 = named_shape("qwen2.5-7b");
  EXPECT_EQ(qwen2.num_heads / qwen2.num_kv_heads, 7);
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_FALSE(qwen2.attention_out_bias);
  const ModelConfig qwen3 = named_shape("qwen3-8b");
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_EQ(qwen3.max_position_embeddings, 40960);
  for (const std::string_view name : shape_names()) {
    const ModelConfig config = named_shape(name);
    EXPECT_EQ(config.head_dim, 128) << name;
    EXPECT_EQ(config.torch_dtype, DType::kBF16) << name;
    EXPECT_FALSE(config.tie_word_embeddings) << name;
  }
}

TEST(NamedShape, ListsTheNamesForAnother) {
  EXPECT_EQ(test::error_of([] { named_shape("llama-70b"); }),
            "shape: expected llama-3.1-8b, qwen2.5-7b, qwen3-8b, found \"llama-70b\"");
}

}  // namespace
}  // namespace seer
