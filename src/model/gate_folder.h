// What reading prefill gates and decode gates has in common: fields of config.json, and the tensors.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/buffer.h"
#include "core/check.h"
#include "io/tensor_file.h"
#include "model/config.h"

namespace seer {

using Json = nlohmann::ordered_json;

inline constexpr const char* kGateSafetensors = "attn_gate_weights.safetensors";
inline constexpr const char* kGateTorch = "attn_gate_weights.pth";
/// The key that tells a decode gate's config.json from a prefill gate's.
inline constexpr const char* kDecodeGateKey = "seerattn_q_head_pooling_type";

/// Throws Error naming the file and the byte when it is no JSON.
Json read_json(const std::string& path);

/// A field of a JSON object; `fallback` where it is absent or null. Throws Error for another type.
template <class T>
T field(const Json& object, const std::string& path, const char* name, T fallback) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return fallback;
  try {
    return found->get<T>();
  } catch (const Json::type_error&) {
    fail("{}: {}: expected another type, found {}", path, name, found->type_name());
  }
}

/// The same; throws Error where it is absent or null.
template <class T>
T required(const Json& object, const std::string& path, const char* name) {
  SEER_CHECK(object.is_object() && object.contains(name) && !object[name].is_null(),
             "{}: expected the field {}, found none", path, name);
  return field<T>(object, path, name, T{});
}

/// config.json is a decode gate's and no prefill gate's.
bool holds_decode_gate(const Json& json);

/// "maxminavg" -> PoolSet; the names stand in this order and once each. 0: it is none.
unsigned parse_pools(std::string_view names);

/// seerattn_gate_hidden_size, which must be even; checks seerattn_gate_block_size too.
int read_gate_hidden_size(const Json& json, const std::string& path);

/// The gate folder repeats the base model's keys: those that fix the geometry must agree.
void check_gate_geometry(const Json& json, const std::string& path, const ModelConfig& model);

/// attn_gate_weights.safetensors, or .pth where there is none.
TensorStore open_gate_tensors(const std::string& folder);

/// A tensor of this shape in float32. Throws Error naming file, tensor and both shapes, and for values that
/// are not finite.
Buffer<float> read_gate_weight(const TensorStore& store, const std::string& name,
                               std::initializer_list<std::int64_t> shape);

}  // namespace seer
