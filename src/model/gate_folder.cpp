#include "model/gate_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "ops/gate.h"

namespace seer {

namespace fs = std::filesystem;

Json read_json(const std::string& path) {
  try {
    return Json::parse(read_file(path));
  } catch (const Json::parse_error& error) {
    fail("{}: expected JSON, found an error at byte {}", path, error.byte);
  }
}

bool holds_decode_gate(const Json& json) {
  return json.contains(kDecodeGateKey) && !json.contains("seerattn_gate_type");
}

unsigned parse_pools(std::string_view names) {
  unsigned pools = 0;
  for (const auto& [name, pool] : {std::pair{"max", kPoolMax}, {"min", kPoolMin}, {"avg", kPoolAvg}}) {
    if (!names.starts_with(name)) continue;
    pools |= pool;
    names.remove_prefix(3);
  }
  return names.empty() ? pools : 0;
}

int read_gate_hidden_size(const Json& json, const std::string& path) {
  const auto block = field<std::int64_t>(json, path, "seerattn_gate_block_size", kBlockSize);
  SEER_CHECK(block == kBlockSize, "{}: seerattn_gate_block_size: expected {}, found {}", path, kBlockSize,
             block);
  const int size = required<int>(json, path, "seerattn_gate_hidden_size");
  SEER_CHECK(size > 0 && size % 2 == 0,
             "{}: seerattn_gate_hidden_size: expected a positive even number, found {}", path, size);
  return size;
}

void check_gate_geometry(const Json& json, const std::string& path, const ModelConfig& model) {
  const std::pair<const char*, int> expected[] = {{"num_hidden_layers", model.num_layers},
                                                  {"num_attention_heads", model.num_heads},
                                                  {"num_key_value_heads", model.num_kv_heads},
                                                  {"head_dim", model.head_dim}};
  for (const auto& [name, value] : expected) {
    const auto found = field<std::int64_t>(json, path, name, value);
    SEER_CHECK(found == value,
               "{}: {}: expected the model's {}, found {}; this gate belongs to another model", path, name,
               value, found);
  }
}

TensorStore open_gate_tensors(const std::string& folder) {
  const fs::path safetensors = fs::path(folder) / kGateSafetensors, torch = fs::path(folder) / kGateTorch;
  SEER_CHECK(fs::exists(safetensors) || fs::exists(torch), "{}: expected {} or {}, found neither", folder,
             kGateSafetensors, kGateTorch);
  return fs::exists(safetensors) ? TensorStore::open_safetensors(safetensors.string())
                                 : TensorStore::open_torch(torch.string());
}

Buffer<float> read_gate_weight(const TensorStore& store, const std::string& name,
                               std::initializer_list<std::int64_t> shape) {
  const TensorView& tensor = store.get(name, std::span(shape.begin(), shape.size()));
  Buffer<float> weight(tensor.num_elements());
  widen_to_float(tensor.dtype, tensor.bytes.data(), weight.data(), weight.size());
  SEER_CHECK(std::all_of(weight.begin(), weight.end(), [](float x) { return std::isfinite(x); }),
             "{}: {}: expected finite values, found an infinity or NaN", tensor.file, name);
  return weight;
}

}  // namespace seer
