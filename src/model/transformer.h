// The forward pass of a Llama-family decoder on the CPU: dense and block-sparse prefill, decode.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "io/tensor_file.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/selector.h"
#include "ops/linear.h"

namespace seer {

/// Weights where the file maps them; norms and biases widened.
struct LayerWeights {
  MatrixView q, k, v, o, gate, up, down;
  std::vector<float> input_norm, post_attention_norm, q_norm, k_norm;
  std::vector<float> q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias;  // empty: none
};

class ModelWeights {
 public:
  /// Maps the folder's tensors; nothing is copied but norms and biases. Throws Error naming file, tensor and
  /// shapes.
  static ModelWeights load(const std::string& folder, const ModelConfig& config);

  MatrixView embedding, lm_head;
  std::vector<float> final_norm;
  std::vector<LayerWeights> layers;
  std::int64_t num_parameters = 0;
  std::int64_t num_bytes = 0;

 private:
  TensorStore store_;
};

/// What happened in a prefill.
struct PrefillStats {
  double seconds = 0;
  double select_seconds = 0;  // pooling, gate and selection
  double attention_seconds = 0;
  double logits_seconds = 0;  // on_logits: computing them and the calls
  std::int64_t selected_blocks = 0;
  std::int64_t causal_blocks = 0;
  double density() const {
    return causal_blocks == 0 ? 1.0
                              : static_cast<double>(selected_blocks) / static_cast<double>(causal_blocks);
  }
};

/// Sees every layer of every chunk of a dense prefill, for distillation and inspection.
class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  /// Asks for the pooled attention of section 6 in observe().
  virtual bool wants_target() const { return false; }
  /// pooled_target [num_heads, rows, target_stride] or nullptr.
  virtual void observe(const SelectInput& input, const float* pooled_target, std::int64_t target_stride) = 0;
};

struct PrefillRequest {
  std::span<const std::int32_t> tokens;
  Selector* selector = nullptr;  // nullptr: dense
  LayerObserver* observer = nullptr;
  /// Called with logits [rows, vocab] of consecutive positions from `first`; without it no logits are
  /// computed but the last position's, in PrefillResult.
  std::function<void(std::int64_t first, std::int64_t rows, const float* logits)> on_logits;
  bool want_last_logits = true;
  /// Called after each chunk with the tokens done so far; may throw to stop.
  std::function<void(std::int64_t done)> on_progress;
};

struct PrefillResult {
  std::vector<float> last_logits;  // [vocab]
  PrefillStats stats;
};

struct TransformerOptions {
  DType kv_dtype = DType::kBF16;     // kF32 or kBF16
  bool allow_bf16 = true;            // bf16 products where the CPU has them; false with --dtype float32
  std::int64_t chunk_tokens = 1024;  // a multiple of 64; results do not depend on it beyond rounding
  std::int64_t max_context = 0;      // 0: the model's max_position_embeddings
};

class Transformer {
 public:
  Transformer(std::shared_ptr<const ModelWeights> weights, const ModelConfig& config, const Context& context,
              const TransformerOptions& options);
  ~Transformer();

  const ModelConfig& config() const { return config_; }
  const Context& context() const { return context_; }
  const TransformerOptions& options() const { return options_; }
  std::int64_t max_context() const { return max_context_; }

  Sequence new_sequence() const;

  /// Runs a prompt into an empty sequence. Throws Error when it is longer than the context.
  PrefillResult prefill(Sequence& sequence, const PrefillRequest& request);

  /// One token more for each sequence, dense; logits [sequences, vocab].
  void decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens, float* logits);

 private:
  struct Scratch;
  RopeTable rope_for(std::int64_t length) const;
  void project_qkv(const LayerWeights& layer, std::int64_t tokens);
  void finish_layer(const LayerWeights& layer, std::int64_t tokens);
  void compute_logits(std::int64_t first, std::int64_t rows, float* logits);
  void prefill_chunk(Sequence& sequence, const PrefillRequest& request, const RopeTable& rope,
                     std::int64_t first, std::int64_t tokens, PrefillStats& stats);

  std::shared_ptr<const ModelWeights> weights_;
  ModelConfig config_;
  Context context_;
  TransformerOptions options_;
  std::int64_t max_context_;
  std::shared_ptr<KvPool> pool_;
  RopeTable rope_;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace seer
