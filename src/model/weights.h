// A model folder's tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/tensor_file.h"
#include "model/config.h"
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

}  // namespace seer
