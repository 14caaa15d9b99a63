// A model's weights in device memory, q, k, v and gate, up joined so that each pair or triple is one product.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "cuda/device_array.h"
#include "model/config.h"
#include "model/weights.h"

namespace seer {

/// 16-bit values of the model's dtype.
using DeviceHalves = cuda::DeviceArray<std::uint16_t>;
using DeviceFloats = cuda::DeviceArray<float>;

struct DeviceLayer {
  DeviceHalves qkv;                                              // [q_size + 2 kv_size, hidden]
  DeviceHalves o;                                                // [hidden, q_size]
  DeviceHalves gate_up;                                          // [2 intermediate, hidden]
  DeviceHalves down;                                             // [hidden, intermediate]
  DeviceFloats input_norm, post_attention_norm, q_norm, k_norm;  // q_norm, k_norm: empty without
  DeviceHalves qkv_bias, gate_up_bias;                           // empty: none
  DeviceFloats o_bias, down_bias;
};

struct DeviceWeights {
  DType dtype = DType::kBF16;
  DeviceHalves embedding;  // [vocab, hidden]
  DeviceHalves lm_head;    // empty: tied
  DeviceFloats final_norm;
  std::vector<DeviceLayer> layers;

  const std::uint16_t* head() const { return lm_head.size() > 0 ? lm_head.data() : embedding.data(); }
  /// Bytes that a decoding step reads: all matrices, of the embedding only as lm_head.
  std::int64_t matrix_bytes() const;
};

/// Values rounded to `dtype`; empty for none.
DeviceHalves upload_rounded(std::span<const float> values, DType dtype);
DeviceHalves upload_rounded(const Buffer<float>& values, DType dtype);

/// Throws Error naming the sizes when they do not fit into the device's free memory.
DeviceWeights upload_weights(const ModelWeights& weights, const ModelConfig& config, DType dtype);
DeviceWeights random_weights(std::uint64_t seed, const ModelConfig& config, DType dtype);

}  // namespace seer
