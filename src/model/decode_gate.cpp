#include "model/decode_gate.h"

#include <algorithm>
#include <filesystem>

#include "model/gate_folder.h"

namespace seer {
namespace {

std::string config_path(const std::string& folder) {
  return (std::filesystem::path(folder) / "config.json").string();
}

std::string tensor_name(int layer, const char* part) {
  return fmt::format("model.layers.{}.self_attn.attn_gate.attngate_{}.weight", layer, part);
}

unsigned read_k_pools(const Json& json, const std::string& path) {
  const auto type = required<std::string>(json, path, "seerattn_k_seq_pooling_type");
  const unsigned pools = type.starts_with('K') ? parse_pools(std::string_view(type).substr(1)) : 0;
  SEER_CHECK(pools != 0,
             "{}: seerattn_k_seq_pooling_type: expected K<pools> with pools of max, min, avg in this order, "
             "found \"{}\"",
             path, type);
  return pools;
}

/// The matrix of each KV head, divided by the group's size, once for every query head of its group.
Buffer<float> spread_over_group(const Buffer<float>& weight, int kv_heads, int group) {
  const std::int64_t size = weight.size() / kv_heads;
  Buffer<float> spread(weight.size() * group);
  for (std::int64_t head = 0; head < std::int64_t{kv_heads} * group; ++head)
    std::transform(weight.begin() + head / group * size, weight.begin() + (head / group + 1) * size,
                   spread.begin() + head * size, [&](float x) { return x / static_cast<float>(group); });
  return spread;
}

}  // namespace

DecodeGateParams DecodeGate::params(const ModelConfig& model, int layer) const {
  const DecodeGateLayer& weights = layers[static_cast<std::size_t>(layer)];
  return {.num_heads = model.num_heads,
          .num_kv_heads = model.num_kv_heads,
          .head_dim = model.head_dim,
          .dim = gate_hidden_size,
          .k_pools = k_pools,
          .q_weight = weights.q_weight.data(),
          .k_weight = weights.k_weight.data(),
          .q_norm = weights.q_norm.data(),
          .k_norm = weights.k_norm.data()};
}

bool is_decode_gate_folder(const std::string& folder) {
  return holds_decode_gate(read_json(config_path(folder)));
}

DecodeGate load_decode_gate(const std::string& folder, const ModelConfig& model) {
  const std::string path = config_path(folder);
  const Json json = read_json(path);
  SEER_CHECK(json.is_object(), "{}: expected a JSON object, found {}", path, json.type_name());
  SEER_CHECK(!json.contains("seerattn_gate_type") || json.contains(kDecodeGateKey),
             "{}: expected a decode gate ({}), found a prefill gate (seerattn_gate_type)", path,
             kDecodeGateKey);
  const auto q_pooling = required<std::string>(json, path, kDecodeGateKey);
  SEER_CHECK(q_pooling == "Qproj" || q_pooling == "Qavgproj",
             "{}: {}: expected Qproj or Qavgproj, found \"{}\"", path, kDecodeGateKey, q_pooling);
  SEER_CHECK(field(json, path, "seerattn_use_rope", true),
             "{}: seerattn_use_rope: expected true, found false", path);
  DecodeGate gate;
  gate.k_pools = read_k_pools(json, path);
  gate.gate_hidden_size = read_gate_hidden_size(json, path);
  gate.start_layer = field(json, path, "seerattn_start_layer", gate.start_layer);
  check_gate_geometry(json, path, model);

  const TensorStore store = open_gate_tensors(folder);
  const bool has_norms = store.contains(tensor_name(0, "qnorm"));
  SEER_CHECK(field(json, path, "seerattn_use_qk_norm", has_norms) == has_norms,
             "{}: seerattn_use_qk_norm: expected {} as the tensors of {} have it, found {}", path, has_norms,
             store.label(), !has_norms);
  const std::int64_t kv_heads = model.num_kv_heads, dim = gate.gate_hidden_size, head_dim = model.head_dim;
  const int group = model.num_heads / model.num_kv_heads;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    DecodeGateLayer weights;
    const std::string q_name = tensor_name(layer, "linear_q");
    if (q_pooling == "Qproj")
      weights.q_weight = read_gate_weight(store, q_name, {kv_heads, group, head_dim, dim});
    else
      weights.q_weight = spread_over_group(read_gate_weight(store, q_name, {kv_heads, head_dim, dim}),
                                           model.num_kv_heads, group);
    weights.k_weight = read_gate_weight(store, tensor_name(layer, "linear_k"),
                                        {kv_heads, pool_count(gate.k_pools) * head_dim, dim});
    if (has_norms) {
      weights.q_norm = read_gate_weight(store, tensor_name(layer, "qnorm"), {dim});
      weights.k_norm = read_gate_weight(store, tensor_name(layer, "knorm"), {dim});
    }
    gate.layers.push_back(std::move(weights));
  }
  return gate;
}

}  // namespace seer
