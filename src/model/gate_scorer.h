// Runs the gates of a model over the chunks of one prompt: pooled inputs to block scores.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "model/gate.h"
#include "model/selector.h"

namespace seer {

/// Scores [num_heads, rows, stride] of one layer and chunk, valid until the next call; columns after a row's
/// diagonal hold -infinity.
struct GateScores {
  float* data = nullptr;
  std::int64_t stride = 0;
};

/// Keeps the compressed keys of earlier chunks; a row's scores have the same bits however the prompt is cut.
class GateScorer {
 public:
  /// `gate` must outlive the scorer.
  GateScorer(const ModelConfig& model, const Gate& gate);

  /// A new prompt of `total_tokens` tokens.
  void begin(std::int64_t total_tokens);
  /// Chunks of a layer come in order and start at multiples of 64 tokens.
  GateScores score(const Context& context, const SelectInput& input);
  /// The same from pooled inputs: q [rows, num_heads, q_pools * head_dim], k [rows, num_kv_heads, k_pools *
  /// head_dim] of block rows [first_row, first_row + rows).
  GateScores score(const Context& context, int layer, std::int64_t first_row, std::int64_t rows,
                   const float* q_pooled, const float* k_pooled);

 private:
  ModelConfig model_;
  const Gate& gate_;
  int dim_;      // gate_hidden_size
  int k_heads_;  // heads of the compressed keys
  std::int64_t total_blocks_ = 0;
  Buffer<float> cos_, sin_;          // [total_blocks, dim / 2] at positions 0, 64, 128, ...
  std::vector<Buffer<float>> keys_;  // per layer [total_blocks, k_heads, dim], after RoPE
  Buffer<float> q_pooled_, k_pooled_, q_, scores_;
};

}  // namespace seer
