// Sparse decoding: a decode gate chooses, token by token, the blocks of one sequence's KV cache that
// attention reads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "model/config.h"
#include "model/decode_gate.h"
#include "ops/block_mask.h"

namespace seer {

/// How a sequence is decoded. Without a gate: dense.
struct DecodeSparsity {
  enum class Rule { kTokenBudget, kThreshold };

  const DecodeGate* gate = nullptr;  // outlives the sequences that use it
  Rule rule = Rule::kTokenBudget;
  std::int64_t token_budget = 0;  // the best token_budget / 64 blocks
  double threshold = 0;           // blocks with more than this share of the gate's softmax
  /// Blocks that fill up while decoding are rotated at the position of their last token, as the reference's
  /// inference has it, not of their first, as gates are trained.
  bool reference_rope = false;

  bool operator==(const DecodeSparsity&) const = default;
};

/// Throws Error naming the option (as the program's flag) that is out of its range.
void validate(const DecodeSparsity& options);

/// Blocks that decoding steps read, of those that they could have, over all layers and KV heads.
struct DecodeDensity {
  std::int64_t selected_blocks = 0;
  std::int64_t total_blocks = 0;
  double density() const {
    return total_blocks == 0 ? 1.0 : static_cast<double>(selected_blocks) / static_cast<double>(total_blocks);
  }
};

/// The compressed keys of one sequence, which the prompt fills and which grow as blocks fill up in decoding,
/// and the choice of blocks by them. A block's key has the same bits, whichever way its tokens came. On a GPU
/// all this is device_state, and the host's keys stay empty.
class DecodeSelector {
 public:
  /// Throws Error where validate() does, and when the gate has other layers than the model.
  DecodeSelector(const ModelConfig& model, const DecodeSparsity& options);

  /// A prompt of `total_tokens` starts at position 0.
  void begin(std::int64_t total_tokens);
  /// A chunk's keys of a layer, [tokens, num_kv_heads, head_dim] before RoPE. Chunks start at multiples of
  /// 64 tokens and come in order.
  void add_prompt(const Context& context, int layer, std::int64_t first, std::int64_t tokens,
                  const float* k_pre);
  /// The blocks for the token at `position`, whose key k_pre [num_kv_heads, head_dim] is taken in: one row
  /// for each KV head, the last block always among them. nullptr: all blocks. Throws Error when the tokens
  /// before `position` did not all come here.
  const BlockMask* select(const Context& context, int layer, std::int64_t position, const float* q_pre,
                          const float* k_pre);

  const CompressedKeys& keys(int layer) const { return layers_[static_cast<std::size_t>(layer)].keys; }
  const DecodeSparsity& options() const { return options_; }
  /// Of decoding on the CPU; Transformer::decode_density() on either device.
  const DecodeDensity& density() const { return density_; }

  /// What another device keeps for this sequence.
  std::shared_ptr<void> device_state;

 private:
  struct Layer {
    CompressedKeys keys;
    Buffer<float> open;  // [64, num_kv_heads, head_dim]: keys of the block that is not full
    std::int64_t tokens = 0;
  };
  struct Rotation {
    std::int64_t first = -1, count = 0;  // blocks' or tokens' positions first, first + 64, ...
    Buffer<float> cos, sin;              // [count, gate_hidden_size / 2]
  };
  void complete(const Context& context, int layer, const float* k, std::int64_t num_blocks,
                std::int64_t position);
  const Rotation& rotation(Rotation& kept, std::int64_t first, std::int64_t count);
  void choose_rope(std::int64_t length);

  ModelConfig model_;
  DecodeSparsity options_;
  RopeTable rope_;
  std::vector<Layer> layers_;
  Rotation query_rotation_, key_rotation_;
  Buffer<float> query_, new_keys_, probabilities_;
  BlockMask mask_;
  DecodeDensity density_;
};

}  // namespace seer
