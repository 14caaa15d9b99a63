// The decode gates of a model (SeerAttention-R): configuration, weights, checkpoints.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "model/config.h"
#include "ops/decode_gate.h"

namespace seer {

/// One layer's gate in float32, as DecodeGateParams describes it.
struct DecodeGateLayer {
  Buffer<float> q_weight;        // [num_kv_heads, num_heads / num_kv_heads * head_dim, gate_hidden_size]
  Buffer<float> k_weight;        // [num_kv_heads, k_pools * head_dim, gate_hidden_size]
  Buffer<float> q_norm, k_norm;  // [gate_hidden_size], empty in a gate without norms
};

struct DecodeGate {
  unsigned k_pools = kPoolMax | kPoolMin | kPoolAvg;
  int gate_hidden_size = 128;
  /// Layers before this one attend densely.
  int start_layer = 0;
  std::vector<DecodeGateLayer> layers;
  /// What another device keeps for this gate (its weights there).
  mutable std::shared_ptr<void> device_state;

  DecodeGateParams params(const ModelConfig& model, int layer) const;
};

/// Whether a folder's config.json is a decode gate's. Throws Error when there is none, or no JSON in it.
bool is_decode_gate_folder(const std::string& folder);

/// Reads a gate folder: config.json, and attn_gate_weights.safetensors or .pth with the tensors
/// model.layers.{i}.self_attn.attn_gate.attngate_{linear_q,linear_k,qnorm,knorm}.weight. Qproj gates have a
/// q matrix per query head, summed over a group; Qavgproj gates one per KV head on the group's mean, which is
/// read as Qproj with that matrix divided by the group's size for each head. Throws Error for other kinds and
/// when geometry does not fit the model, naming file, tensor and both shapes.
DecodeGate load_decode_gate(const std::string& folder, const ModelConfig& model);

}  // namespace seer
