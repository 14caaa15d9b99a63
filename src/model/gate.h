// The gates of a model: configuration, weights, checkpoints.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.h"
#include "model/config.h"
#include "ops/gate.h"
#include "ops/select.h"

namespace seer {

/// `seerattn_*` keys of a gate folder's config.json.
struct GateConfig {
  std::string gate_type = "Qavg_Kmaxminavg";
  unsigned q_pools = kPoolAvg;
  unsigned k_pools = kPoolMax | kPoolMin | kPoolAvg;
  int gate_hidden_size = 128;
  bool force_double = false;
  std::string sparsity_method = "threshold";  // threshold | nz_ratio | token_budget
  double threshold = 0;
  double nz_ratio = 1;
  std::int64_t token_budget = 0;
  bool last_block_dense = true;
  std::string base_model;

  /// No q linear: one k matrix per query head (gate_hidden_size == head_dim, one q pool, no force_double).
  bool has_q_linear(int head_dim) const {
    return force_double || gate_hidden_size != head_dim || pool_count(q_pools) != 1;
  }
};

/// One layer's gate in float32.
struct GateLayer {
  Buffer<float> k_weight;  // [num_heads or num_kv_heads, k_pools * head_dim, gate_hidden_size]
  Buffer<float> q_weight;  // [num_heads, q_pools * head_dim, gate_hidden_size], empty without a q linear
};

/// Thresholds that give densities: one entry per length, densities ascending.
struct Calibration {
  struct Point {
    double density = 0;
    double threshold = 0;
  };
  struct Length {
    std::int64_t tokens = 0;
    std::vector<Point> points;
  };
  SelectRule rule = SelectRule::kThreshold;  // kThreshold, kTopP or kResidual
  std::vector<Length> lengths;

  /// The threshold for a density at a prompt length: log-linear interpolation between densities and between
  /// log lengths; outside the table the nearest entry's slope-free value. Throws Error when the table is
  /// empty.
  double threshold_for(double density, std::int64_t tokens) const;
};

struct Gate {
  GateConfig config;
  std::vector<GateLayer> layers;
  std::optional<Calibration> calibration;

  int num_k_heads(const ModelConfig& model) const {
    return config.has_q_linear(model.head_dim) ? model.num_kv_heads : model.num_heads;
  }
};

/// Reads a prefill gate's folder: config.json, attn_gate_weights.pth or attn_gate_weights.safetensors,
/// calibration.json where present. Throws Error when geometry does not fit the model, naming file, tensor and
/// both shapes.
Gate load_gate(const std::string& folder, const ModelConfig& model);

/// Writes a gate folder (safetensors, or .pth that the reference reads), atomically file by file. The model's
/// own config.json keys are carried over from `model_folder`. Weights are written in float32, or bf16 if
/// asked.
struct SaveGateOptions {
  bool torch_format = false;
  DType dtype = DType::kF32;
};
void save_gate(const std::string& folder, const Gate& gate, const ModelConfig& model,
               const std::string& model_folder, const SaveGateOptions& options);

/// gate_type and the pools that it names, as "Qavg_Kmaxminavg"; everything else as by default. Throws Error
/// when it names none.
GateConfig parse_gate_type(const std::string& gate_type);

/// threshold | top_p | residual, as calibration.json names them; throws Error for another name.
SelectRule parse_calibration_rule(std::string_view name);

/// Writes FOLDER/calibration.json atomically.
void save_calibration(const std::string& folder, const Calibration& calibration);

/// Tensors' names: model.layers.{i}.self_attn.attn_gate.mask_linear_{k,q}.weight
std::string gate_tensor_name(int layer, char which);

}  // namespace seer
