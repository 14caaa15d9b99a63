#include "model/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "core/check.h"

namespace seer {
namespace {

constexpr std::array<std::string_view, 3> kNames{"llama-3.1-8b", "qwen2.5-7b", "qwen3-8b"};

/// What the models of kNames say of their geometry.
constexpr std::array<const char*, kNames.size()> kConfigs{
    R"({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        "bos_token_id": 128000, "eos_token_id": 128001, "torch_dtype": "bfloat16"})",
    R"({"model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18944,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "bos_token_id": 151643, "eos_token_id": 151643, "torch_dtype": "bfloat16"})",
    R"({"model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 4096, "intermediate_size": 12288,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "torch_dtype": "bfloat16"})"};

}  // namespace

std::span<const std::string_view> shape_names() { return kNames; }

ModelConfig named_shape(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  SEER_CHECK(found != kNames.end(), "shape: expected {}, found \"{}\"", fmt::join(kNames, ", "), name);
  return parse_model_config(kConfigs[static_cast<std::size_t>(found - kNames.begin())], std::string(name));
}

}  // namespace seer
