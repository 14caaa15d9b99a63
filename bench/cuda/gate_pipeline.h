// The gate's kernels on random data of one layer and length, for benchmarks.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/attention.h"
#include "cuda/device_array.h"
#include "cuda/gate.h"
#include "cuda/rope_pool.h"

namespace seer::cuda {

/// Of RoPE, [dim / 2].
std::vector<double> inverse_frequencies(int dim);

struct GateShape {
  std::int64_t length = 0;
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
};

/// Everything between the projections of a layer and its attention, with the gate Qavg_Kmaxminavg: q has no
/// linear, k one matrix a query head. Calls are asynchronous on the stream.
class GatePipeline {
 public:
  explicit GatePipeline(const GateShape& shape);

  void rope(Stream stream);       // RoPE and the cache alone
  void rope_pool(Stream stream);  // and pooling, with RoPE of the pooled queries
  void project_k(Stream stream);  // successive calls use the weights of different layers
  void select(const SelectParams& params, Stream stream);
  /// The last three.
  void all(const SelectParams& params, Stream stream);

  /// The rule's parameters that select about this share of the causal blocks, by bisection.
  SelectParams params_for(SelectRule rule, double density);
  /// What select() chooses: share of the causal blocks.
  double density(const SelectParams& params);

  const std::uint64_t* mask() const { return mask_.data(); }
  std::int64_t mask_words() const { return mask_words_; }

  // Bytes that each step moves at least, everything once.
  double rope_bytes() const;
  double pool_bytes() const;  // on top
  double project_bytes() const;
  double select_bytes() const;

 private:
  RopePoolParams rope_params();

  GateShape shape_;
  std::int64_t blocks_, mask_words_;
  DeviceArray<std::uint16_t> qkv_, q_, cache_, weights_, gate_q_, k_pooled_, gate_k_;
  DeviceArray<float> cos_, sin_, block_cos_, block_sin_;
  DeviceArray<std::int32_t> page_table_;
  DeviceArray<std::uint64_t> mask_, selected_;
  int layer_ = 0;
};

}  // namespace seer::cuda
