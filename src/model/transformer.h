// The forward pass of a Llama-family decoder: dense and block-sparse prefill, decode. One implementation for
// each device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/token_draw.h"
#include "model/config.h"
#include "model/decode_selector.h"
#include "model/kv_cache.h"
#include "model/selector.h"
#include "model/weights.h"

namespace seer {

/// Where a model runs.
enum class Device { kCpu, kCuda };
std::string_view name_of(Device device);  ///< "cpu", "cuda"

/// What happened in a prefill.
struct PrefillStats {
  double seconds = 0;
  double select_seconds = 0;  // pooling, gate and selection; on a GPU without the pooling, a part of RoPE
  double attention_seconds = 0;
  double logits_seconds = 0;  // on_logits and nll: computing the logits, and the calls
  /// The rest by stage, GPU only. projection: q, k, v and o; rope_pool: RoPE, cache, pooling; gate: its
  /// projections (select_seconds has them too); other: norms and embedding.
  struct Stages {
    double projection = 0, rope_pool = 0, gate = 0, mlp = 0, other = 0;
  } stages;
  std::int64_t selected_blocks = 0;
  std::int64_t causal_blocks = 0;
  double density() const {
    return causal_blocks == 0 ? 1.0
                              : static_cast<double>(selected_blocks) / static_cast<double>(causal_blocks);
  }
};

/// What a LayerObserver asks for; nothing is computed or copied that is not wanted.
struct ObserverWants {
  bool target = false;  // the pooled attention of section 6; needs a dense prefill
  bool mask = false;
  unsigned q_pools = 0;  // PoolSet
  unsigned k_pools = 0;
  bool probe = false;         // and lse; needs a dense prefill
  Selector* gated = nullptr;  // of the probe: a selector by the gate of all those that it will be asked about
};

/// One layer of one chunk of a dense prefill, for who compares selectors on the same attention.
class LayerProbe {
 public:
  virtual ~LayerProbe() = default;
  /// Gives `mask` the chunk's shape and the blocks that `selector` keeps. A selector sees every layer of
  /// every chunk of a prompt, in order.
  virtual void select(Selector& selector, BlockMask& mask) = 0;
  /// [num_heads, tokens of the chunk] natural log-sum-exp of the scaled scores inside `mask`, -inf where a
  /// row has none; valid until the next call.
  virtual const float* log_sum_exp(const BlockMask& mask) = 0;
};

/// One layer of one chunk of a prefill, in host memory. Rows are block rows.
struct LayerObservation {
  int layer = 0;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t tokens = 0;          // of the chunk
  std::int64_t total_tokens = 0;    // of the whole prompt
  const float* q_pooled = nullptr;  // [rows, num_heads, pools * head_dim] before RoPE
  const float* k_pooled = nullptr;  // [rows, num_kv_heads, pools * head_dim]
  const float* target = nullptr;    // [num_heads, rows, target_stride]
  std::int64_t target_stride = 0;
  const BlockMask* mask = nullptr;  // nullptr also where all causal blocks were computed
  LayerProbe* probe = nullptr;
  const float* lse = nullptr;  // [num_heads, tokens], as LayerProbe::log_sum_exp of all causal blocks
};

/// Sees every layer of every chunk of a prefill, for distillation, calibration and inspection.
class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  virtual ObserverWants wants() const = 0;
  virtual void observe(const LayerObservation& observation) = 0;
};

struct PrefillRequest {
  std::span<const std::int32_t> tokens;
  Selector* selector = nullptr;  // nullptr: dense
  LayerObserver* observer = nullptr;
  /// Called with logits [rows, vocab] of consecutive positions from `first`; without it no logits are
  /// computed but the last position's, in PrefillResult.
  std::function<void(std::int64_t first, std::int64_t rows, const float* logits)> on_logits;
  /// [tokens - 1] or nullptr: the loss (negative log-probability) of each token from the second on, given
  /// those before it.
  float* nll = nullptr;
  bool want_last_logits = true;
  /// Called after each chunk with the tokens done so far (on a GPU: handed to the device); may throw to stop.
  std::function<void(std::int64_t done)> on_progress;
};

struct PrefillResult {
  std::vector<float> last_logits;  // [vocab]
  PrefillStats stats;
};

struct TransformerOptions {
  DType kv_dtype = DType::kBF16;   // CPU: kF32 or kBF16
  bool allow_bf16 = true;          // CPU: bf16 products where it has them; false with --dtype float32
  DType gpu_dtype = DType::kBF16;  // GPU: weights, activations and KV cache, kBF16 or kF16
  std::int64_t chunk_tokens = 0;   // a multiple of 64; 0: the device's own. Changes rounding only
  std::int64_t max_context = 0;    // 0: the model's max_position_embeddings
};

class Transformer {
 public:
  virtual ~Transformer() = default;
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  virtual Device device() const = 0;
  const ModelConfig& config() const { return config_; }
  /// Of the host: threads and instruction set.
  const Context& context() const { return context_; }
  const TransformerOptions& options() const { return options_; }
  std::int64_t max_context() const { return max_context_; }

  /// Bytes of weights that a decoding step reads.
  virtual std::int64_t matrix_bytes() const = 0;

  Sequence new_sequence() const { return Sequence(pool_); }

  /// Runs a prompt into an empty sequence. Throws Error when it is longer than the context, when a token is
  /// outside the vocabulary, and when the observer wants the target or a probe of a sparse prefill.
  PrefillResult prefill(Sequence& sequence, const PrefillRequest& request);

  /// One token more for each sequence, dense or by its decode selector; logits [sequences, vocab]. Throws
  /// Error when a context is full, and on a GPU when the sequences have decode selectors of different
  /// options.
  void decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens, float* logits);

  /// The same; next[i] is what draws[i] draws from the logits, which stay on the device. Throws Error when a
  /// logit is NaN or, with a temperature above 0, the largest one is infinite.
  void decode_drawn(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                    std::span<const TokenDraw> draws, std::int32_t* next);
  /// The same; next[i] is the token of the largest logit (the first of equals).
  void decode_greedy(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                     std::int32_t* next);

  /// What decoding this sequence has read by its selector so far; nothing without one.
  virtual DecodeDensity decode_density(const Sequence& sequence) const;

 protected:
  Transformer(const ModelConfig& config, const Context& context, const TransformerOptions& options,
              std::shared_ptr<PagePool> pool);

  virtual PrefillResult run_prefill(Sequence& sequence, const PrefillRequest& request) = 0;
  /// The sequences have been extended by their token. `logits` is given, or `next` and one draw a sequence.
  virtual void run_decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                          float* logits, std::span<const TokenDraw> draws, std::int32_t* next) = 0;
  /// Only dynamic NTK's frequencies depend on the length, and only past the trained one.
  RopeTable rope_for(std::int64_t length) const;

  ModelConfig config_;
  Context context_;
  TransformerOptions options_;
  std::int64_t max_context_;

 private:
  void extend_for_decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens);

  std::shared_ptr<PagePool> pool_;
  RopeTable rope_;
};

}  // namespace seer
