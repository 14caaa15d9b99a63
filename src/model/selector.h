// Selectors decide, layer by layer and chunk by chunk of a prefill, which blocks attention computes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "model/gate.h"
#include "ops/attention.h"
#include "ops/block_mask.h"
#include "ops/select.h"
#include "seer/options.h"

namespace seer {

/// What a selector may look at: one layer of one chunk. Chunks start at multiples of 64 tokens.
struct SelectInput {
  int layer = 0;
  std::int64_t q_offset = 0;      // position of the chunk's first token
  std::int64_t num_tokens = 0;    // tokens of the chunk
  std::int64_t total_tokens = 0;  // tokens of the whole prompt
  const float* q_pre =
      nullptr;  // [num_tokens, num_heads, head_dim] before RoPE (after q/k norm), stride q_stride
  const float* k_pre = nullptr;  // [num_tokens, num_kv_heads, head_dim] before RoPE, stride k_stride
  std::int64_t q_stride = 0;     // elements from a token to the next
  std::int64_t k_stride = 0;
  const float* q = nullptr;  // [num_tokens, num_heads, head_dim] after RoPE, contiguous
  PagedKv kv;                // this layer's cache, the chunk's keys included
  float scale = 0;
};

/// "dense", "gate", "oracle", "local", "random"
enum class SelectorKind { kDense, kGate, kOracle, kLocal, kRandom };
SelectorKind parse_selector_kind(std::string_view name);  ///< throws Error listing the names
std::string_view name_of(SelectorKind kind);

SparsityOptions::Rule parse_rule(
    std::string_view name);  ///< adaptive | nz_ratio | threshold | top_p | residual
std::string_view name_of(SparsityOptions::Rule rule);

/// What make_selector was asked for: all that a selector is, on any device.
struct SelectorSettings {
  SelectorKind kind = SelectorKind::kDense;
  SparsityOptions sparsity;
  const Gate* gate = nullptr;
  std::uint64_t seed = 0;

  /// The rule for a prompt of `total_tokens`. kAdaptive becomes the gate's calibrated threshold; for `local`
  /// and `random` it becomes an nz_ratio. Throws Error when the gate has no calibration.
  SelectParams resolve(std::int64_t total_tokens) const;
};

/// A selector for one prompt at a time; it may keep state between a prompt's chunks (compressed keys).
class Selector {
 public:
  virtual ~Selector() = default;
  /// A new prompt of `total_tokens` starts at position 0.
  virtual void begin(std::int64_t total_tokens) = 0;
  /// Fills `mask`, already shaped to the chunk's rows and empty. False: all causal blocks (mask is not used).
  virtual bool select(const Context& context, const SelectInput& input, BlockMask& mask) = 0;

  /// Empty for selectors that make_selector did not make; these run on the CPU only.
  std::optional<SelectorSettings> settings;
  /// What another device keeps for this selector (its gate's weights there).
  std::shared_ptr<void> device_state;
};

/// `gate` is needed by kGate (and by kAdaptive's table); it must outlive the selector. `local` and `random`
/// take an adaptive density as nz_ratio; `oracle` under adaptive keeps the threshold rule on its own scores
/// with a bisection per prompt so that it meets the density.
std::unique_ptr<Selector> make_selector(SelectorKind kind, const SparsityOptions& options,
                                        const ModelConfig& model, const Gate* gate, std::uint64_t seed);

}  // namespace seer
