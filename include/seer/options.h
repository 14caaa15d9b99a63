// What a model is asked for: how much attention, how tokens are drawn, where it runs.
#pragma once

#include <cstdint>
#include <string>

namespace seer {

/// How much of the attention map a prompt's prefill computes.
struct SparsityOptions {
  /// kAdaptive: `value` is a density, the share of causal 64x64 blocks, by the gate's calibration; 1 is
  /// dense. kNzRatio: top-k blocks of every row, counted as the reference implementation does. kThreshold:
  /// blocks whose predicted share of a row exceeds it. kTopP: a row's fewest best blocks that reach this
  /// share. kResidual: best first, while a block's share times the share still missing exceeds it.
  enum class Rule { kAdaptive, kNzRatio, kThreshold, kTopP, kResidual };
  Rule rule = Rule::kAdaptive;
  double value = 1.0;
  bool last_block_dense = false;  // the last two block rows attend densely
};

/// How a token is drawn. Applied in the order of Hugging Face's generate(): repetition penalty, temperature,
/// top-k, top-p, min-p.
struct SamplingOptions {
  float temperature = 0;         // 0: the largest logit (the first of equals)
  std::int64_t top_k = 0;        // keep the k most likely tokens; 0: all
  float top_p = 1;               // keep the fewest most likely tokens whose probabilities reach top_p
  float min_p = 0;               // drop tokens less likely than min_p times the most likely one
  float repetition_penalty = 1;  // divides positive and multiplies negative logits of tokens seen before
  std::uint64_t seed = 0;
};

/// Where and how a model runs.
struct ModelOptions {
  std::string device = "cpu";  // cpu, or cuda (H100, H200)
  /// bfloat16, float32 (CPU), float16 (GPU), or auto: bfloat16, on a GPU float16 for F16 weights.
  std::string dtype = "auto";
  int threads = 0;               // of the host; 0: one per core
  std::int64_t max_context = 0;  // longest sequence in tokens; 0: the model's max_position_embeddings
};

}  // namespace seer
