#include "model/weights.h"

#include <array>

#include "core/check.h"

namespace seer {
namespace {

/// Looks tensors up by name with the shape that the configuration demands, and adds up what was used.
class WeightReader {
 public:
  WeightReader(const TensorStore& store, ModelWeights& weights) : store_(store), weights_(weights) {}

  MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) {
    const TensorView& tensor = checked(name, std::array{rows, cols});
    return {.dtype = tensor.dtype, .data = tensor.bytes.data(), .rows = rows, .cols = cols};
  }
  std::vector<float> vector(const std::string& name, std::int64_t size) {
    return checked(name, std::array{size}).to_floats();
  }
  std::vector<float> vector_if(bool wanted, const std::string& name, std::int64_t size) {
    return wanted ? vector(name, size) : std::vector<float>();
  }

 private:
  const TensorView& checked(const std::string& name, std::span<const std::int64_t> shape) {
    const TensorView& tensor = store_.get(name, shape);
    SEER_CHECK(tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kF32,
               "{}: tensor {}: expected BF16, F16 or F32, found {}", tensor.file, name,
               name_of(tensor.dtype));
    weights_.num_parameters += tensor.num_elements();
    weights_.num_bytes += static_cast<std::int64_t>(tensor.bytes.size());
    return tensor;
  }

  const TensorStore& store_;
  ModelWeights& weights_;
};

}  // namespace

ModelWeights ModelWeights::load(const std::string& folder, const ModelConfig& config) {
  ModelWeights weights;
  weights.store_ = TensorStore::open_model_folder(folder);
  WeightReader reader(weights.store_, weights);
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t q_size = config.q_size(), kv_size = config.kv_size(), dim = config.head_dim;

  weights.embedding = reader.matrix("model.embed_tokens.weight", config.vocab_size, hidden);
  weights.lm_head = config.tie_word_embeddings ? weights.embedding
                                               : reader.matrix("lm_head.weight", config.vocab_size, hidden);
  weights.final_norm = reader.vector("model.norm.weight", hidden);
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const std::string attn = layer + "self_attn.", mlp = layer + "mlp.";
    weights.layers.push_back({
        .q = reader.matrix(attn + "q_proj.weight", q_size, hidden),
        .k = reader.matrix(attn + "k_proj.weight", kv_size, hidden),
        .v = reader.matrix(attn + "v_proj.weight", kv_size, hidden),
        .o = reader.matrix(attn + "o_proj.weight", hidden, q_size),
        .gate = reader.matrix(mlp + "gate_proj.weight", inner, hidden),
        .up = reader.matrix(mlp + "up_proj.weight", inner, hidden),
        .down = reader.matrix(mlp + "down_proj.weight", hidden, inner),
        .input_norm = reader.vector(layer + "input_layernorm.weight", hidden),
        .post_attention_norm = reader.vector(layer + "post_attention_layernorm.weight", hidden),
        .q_norm = reader.vector_if(config.qk_norm, attn + "q_norm.weight", dim),
        .k_norm = reader.vector_if(config.qk_norm, attn + "k_norm.weight", dim),
        .q_bias = reader.vector_if(config.attention_bias, attn + "q_proj.bias", q_size),
        .k_bias = reader.vector_if(config.attention_bias, attn + "k_proj.bias", kv_size),
        .v_bias = reader.vector_if(config.attention_bias, attn + "v_proj.bias", kv_size),
        .o_bias = reader.vector_if(config.attention_out_bias, attn + "o_proj.bias", hidden),
        .gate_bias = reader.vector_if(config.mlp_bias, mlp + "gate_proj.bias", inner),
        .up_bias = reader.vector_if(config.mlp_bias, mlp + "up_proj.bias", inner),
        .down_bias = reader.vector_if(config.mlp_bias, mlp + "down_proj.bias", hidden),
    });
  }
  return weights;
}

}  // namespace seer
