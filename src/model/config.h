// config.json of a Hugging Face model folder, parsed once into plain structs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace seer {

enum class RopeType { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

/// Rotary embedding settings, from `rope_theta` + `rope_scaling` or from `rope_parameters`.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  std::int64_t original_max_position_embeddings = 0;  // 0: the model's max_position_embeddings
  double low_freq_factor = 1.0;                       // llama3
  double high_freq_factor = 4.0;                      // llama3
  double beta_fast = 32.0;                            // yarn
  double beta_slow = 1.0;                             // yarn
  std::optional<double> attention_factor;             // yarn
  std::optional<double> mscale, mscale_all_dim;       // yarn
  bool truncate = true;                               // yarn
  std::int64_t max_position_embeddings = 0;
};

struct ModelConfig {
  std::string model_type;  // "llama", "mistral", "qwen2", "qwen3"
  int num_layers = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  bool attention_bias = false;      // biases of q, k, v
  bool attention_out_bias = false;  // bias of o (llama's attention_bias has it, qwen2's does not)
  bool mlp_bias = false;
  bool qk_norm = false;  // qwen3
  RopeConfig rope;
  std::optional<std::int32_t> bos_token_id;
  std::vector<std::int32_t> eos_token_ids;
  DType torch_dtype = DType::kBF16;

  int q_size() const { return num_heads * head_dim; }
  int kv_size() const { return num_kv_heads * head_dim; }
};

/// Reads FOLDER/config.json (and generation_config.json's eos_token_id where present). Unknown model_type,
/// MoE, sliding-window layers, another activation than silu, missing or mistyped fields: Error naming file
/// and field.
ModelConfig load_model_config(const std::string& folder);
/// From JSON text; `label` names it in messages.
ModelConfig parse_model_config(const std::string& json, const std::string& label);

/// Cosines and sines of rotary positions for a head dimension `dim` (the model's, or the gate's).
/// Dynamic NTK depends on the sequence length; `max_position` is one past the largest position of the run.
class RopeTable {
 public:
  RopeTable(const RopeConfig& config, int dim, std::int64_t max_position);

  /// Writes cos and sin [count, dim / 2] of positions first, first + step, ... (times the attention factor).
  void fill(std::int64_t first, std::int64_t step, std::int64_t count, float* cos, float* sin) const;
  int dim() const { return dim_; }
  const std::vector<double>& inv_freq() const { return inv_freq_; }  ///< [dim / 2] radians a position
  double attention_factor() const { return attention_factor_; }

 private:
  int dim_;
  double attention_factor_ = 1.0;
  std::vector<double> inv_freq_;  // [dim / 2]
};

}  // namespace seer
