#include "model/gate.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/check.h"
#include "io/tensor_file.h"
#include "model/gate_folder.h"

namespace seer {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCalibration = "calibration.json";

/// Rules that a calibration may be for, as its file names them.
constexpr std::pair<SelectRule, std::string_view> kRules[] = {
    {SelectRule::kThreshold, "threshold"}, {SelectRule::kTopP, "top_p"}, {SelectRule::kResidual, "residual"}};

GateConfig parse_gate_config(const Json& json, const std::string& path) {
  GateConfig config;
  SEER_CHECK(
      !holds_decode_gate(json),
      "{}: expected a prefill gate (seerattn_gate_type), found a decode gate ({}), which `seer generate` "
      "takes as --decode-gate",
      path, kDecodeGateKey);
  const auto gate_type = required<std::string>(json, path, "seerattn_gate_type");
  try {
    config = parse_gate_type(gate_type);
  } catch (const Error& error) {
    fail("{}: seerattn_gate_type: {}", path, error.what());
  }
  config.gate_hidden_size = read_gate_hidden_size(json, path);
  config.force_double = field(json, path, "seerattn_gate_force_double", config.force_double);
  config.sparsity_method = field(json, path, "seerattn_sparsity_method", config.sparsity_method);
  SEER_CHECK(config.sparsity_method == "threshold" || config.sparsity_method == "nz_ratio" ||
                 config.sparsity_method == "token_budget",
             "{}: seerattn_sparsity_method: expected threshold, nz_ratio or token_budget, found \"{}\"", path,
             config.sparsity_method);
  config.threshold = field(json, path, "seerattn_threshold", config.threshold);
  config.nz_ratio = field(json, path, "seerattn_nz_ratio", config.nz_ratio);
  config.token_budget = field(json, path, "seerattn_token_budget", config.token_budget);
  config.last_block_dense = field(json, path, "seerattn_last_block_dense", config.last_block_dense);
  config.base_model = field(json, path, "base_model", config.base_model);
  return config;
}

Calibration parse_calibration(const std::string& path) {
  const Json json = read_json(path);
  Calibration calibration;
  const auto rule = required<std::string>(json, path, "rule");
  try {
    calibration.rule = parse_calibration_rule(rule);
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
  const auto lengths = required<Json>(json, path, "lengths");
  SEER_CHECK(lengths.is_array() && !lengths.empty(), "{}: lengths: expected a list, found {}", path,
             lengths.type_name());
  for (const Json& entry : lengths) {
    Calibration::Length length;
    length.tokens = required<std::int64_t>(entry, path, "tokens");
    const auto points = required<Json>(entry, path, "points");
    SEER_CHECK(points.is_array() && !points.empty(), "{}: points: expected a list, found {}", path,
               points.type_name());
    for (const Json& point : points)
      length.points.push_back(
          {required<double>(point, path, "density"), required<double>(point, path, "threshold")});
    const auto by_density = [](const auto& a, const auto& b) { return a.density < b.density; };
    SEER_CHECK(std::is_sorted(length.points.begin(), length.points.end(), by_density) &&
                   length.points.front().density > 0,
               "{}: points: expected rising densities above 0 at {} tokens", path, length.tokens);
    SEER_CHECK(length.tokens > (calibration.lengths.empty() ? 0 : calibration.lengths.back().tokens),
               "{}: lengths: expected rising tokens, found {}", path, length.tokens);
    calibration.lengths.push_back(std::move(length));
  }
  return calibration;
}

/// Place of `x` between a[i] and a[i + 1]; outside them the nearest end.
struct Place {
  std::size_t lower, upper;
  double share;  // of the upper one
};
template <class Items, class Key>
Place locate(const Items& items, double x, Key&& key) {
  const auto above =
      std::find_if(items.begin(), items.end(), [&](const auto& item) { return key(item) >= x; });
  if (above == items.begin()) return {0, 0, 0};
  if (above == items.end()) return {items.size() - 1, items.size() - 1, 0};
  const auto upper = static_cast<std::size_t>(above - items.begin());
  const double low = key(items[upper - 1]), high = key(items[upper]);
  return {upper - 1, upper, std::log(x / low) / std::log(high / low)};
}

/// Thresholds are interpolated by their logarithms, masses by the logarithm of what they leave out.
double interpolate(SelectRule rule, double low, double high, double share) {
  constexpr double kLeast = 1e-12;
  if (share == 0) return low;
  if (rule == SelectRule::kTopP)
    return 1 - std::exp((1 - share) * std::log(std::max(1 - low, kLeast)) +
                        share * std::log(std::max(1 - high, kLeast)));
  return std::exp((1 - share) * std::log(std::max(low, kLeast)) + share * std::log(std::max(high, kLeast)));
}

/// A tensor's float32 or bf16 bytes, kept alive while it is written.
struct Payload {
  std::vector<BFloat16> narrow;
  TensorToWrite tensor;

  Payload(std::string name, const Buffer<float>& weight, std::vector<std::int64_t> shape, DType dtype) {
    tensor = {.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .data = weight.data()};
    if (dtype != DType::kBF16) return;
    narrow.resize(static_cast<std::size_t>(weight.size()));
    std::transform(weight.begin(), weight.end(), narrow.begin(), [](float x) { return to_bfloat16(x); });
    tensor.data = narrow.data();
  }
};

}  // namespace

std::string gate_tensor_name(int layer, char which) {
  return fmt::format("model.layers.{}.self_attn.attn_gate.mask_linear_{}.weight", layer, which);
}

SelectRule parse_calibration_rule(std::string_view name) {
  for (const auto& [rule, known] : kRules)
    if (known == name) return rule;
  fail("rule: expected threshold, top_p or residual, found \"{}\"", name);
}

double Calibration::threshold_for(double density, std::int64_t tokens) const {
  SEER_CHECK(!lengths.empty(), "calibration: the table of lengths is empty; run `seer calibrate`");
  const auto at_length = [&](const Length& length) {
    const Place place = locate(length.points, density, [](const Point& point) { return point.density; });
    return interpolate(rule, length.points[place.lower].threshold, length.points[place.upper].threshold,
                       place.share);
  };
  const Place place = locate(lengths, static_cast<double>(tokens),
                             [](const Length& length) { return static_cast<double>(length.tokens); });
  return interpolate(rule, at_length(lengths[place.lower]), at_length(lengths[place.upper]), place.share);
}

GateConfig parse_gate_type(const std::string& gate_type) {
  GateConfig config;
  const std::string_view type = gate_type;
  const std::size_t split = type.find("_K");
  const bool has_form = type.starts_with("Q") && split != std::string_view::npos;
  config.gate_type = gate_type;
  config.q_pools = has_form ? parse_pools(type.substr(1, split - 1)) : 0;
  config.k_pools = has_form ? parse_pools(type.substr(split + 2)) : 0;
  SEER_CHECK(config.q_pools != 0 && config.k_pools != 0,
             "gate type: expected Q<pools>_K<pools> with pools of max, min, avg in this order, found \"{}\"",
             gate_type);
  return config;
}

Gate load_gate(const std::string& folder, const ModelConfig& model) {
  const std::string config_path = (fs::path(folder) / "config.json").string();
  const Json json = read_json(config_path);
  SEER_CHECK(json.is_object(), "{}: expected a JSON object, found {}", config_path, json.type_name());
  Gate gate;
  gate.config = parse_gate_config(json, config_path);
  check_gate_geometry(json, config_path, model);

  const TensorStore store = open_gate_tensors(folder);
  const GateConfig& config = gate.config;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    GateLayer weights;
    weights.k_weight = read_gate_weight(
        store, gate_tensor_name(layer, 'k'),
        {gate.num_k_heads(model), pool_count(config.k_pools) * model.head_dim, config.gate_hidden_size});
    if (config.has_q_linear(model.head_dim))
      weights.q_weight = read_gate_weight(
          store, gate_tensor_name(layer, 'q'),
          {model.num_heads, pool_count(config.q_pools) * model.head_dim, config.gate_hidden_size});
    gate.layers.push_back(std::move(weights));
  }
  const fs::path calibration = fs::path(folder) / kCalibration;
  if (fs::exists(calibration)) gate.calibration = parse_calibration(calibration.string());
  return gate;
}

void save_gate(const std::string& folder, const Gate& gate, const ModelConfig& model,
               const std::string& model_folder, const SaveGateOptions& options) {
  SEER_CHECK(options.dtype == DType::kF32 || options.dtype == DType::kBF16,
             "{}: gate weights are written as F32 or BF16, not {}", folder, name_of(options.dtype));
  std::error_code error;
  fs::create_directories(folder, error);
  SEER_CHECK(!error, "{}: cannot create the folder: {}", folder, error.message());
  const GateConfig& config = gate.config;
  std::vector<Payload> payloads;
  for (std::size_t layer = 0; layer < gate.layers.size(); ++layer) {
    const GateLayer& weights = gate.layers[layer];
    const int index = static_cast<int>(layer);
    payloads.emplace_back(gate_tensor_name(index, 'k'), weights.k_weight,
                          std::vector<std::int64_t>{gate.num_k_heads(model),
                                                    std::int64_t{pool_count(config.k_pools)} * model.head_dim,
                                                    config.gate_hidden_size},
                          options.dtype);
    if (weights.q_weight.size() == 0) continue;
    payloads.emplace_back(
        gate_tensor_name(index, 'q'), weights.q_weight,
        std::vector<std::int64_t>{model.num_heads, std::int64_t{pool_count(config.q_pools)} * model.head_dim,
                                  config.gate_hidden_size},
        options.dtype);
  }
  std::vector<TensorToWrite> tensors;
  for (const Payload& payload : payloads) tensors.push_back(payload.tensor);
  if (options.torch_format)
    write_torch((fs::path(folder) / kGateTorch).string(), tensors);
  else
    write_safetensors((fs::path(folder) / kGateSafetensors).string(), tensors, {{"format", "pt"}});

  Json json = read_json((fs::path(model_folder) / "config.json").string());
  json["base_model"] = config.base_model;
  json["seerattn_gate_type"] = config.gate_type;
  json["seerattn_gate_block_size"] = kBlockSize;
  json["seerattn_gate_hidden_size"] = config.gate_hidden_size;
  json["seerattn_gate_force_double"] = config.force_double;
  json["seerattn_sparsity_method"] = config.sparsity_method;
  json["seerattn_threshold"] = config.threshold;
  json["seerattn_nz_ratio"] = config.nz_ratio;
  json["seerattn_token_budget"] = config.token_budget;
  json["seerattn_last_block_dense"] = config.last_block_dense;
  write_file_atomically((fs::path(folder) / "config.json").string(), json.dump(2) + "\n");
  if (gate.calibration) save_calibration(folder, *gate.calibration);
}

void save_calibration(const std::string& folder, const Calibration& calibration) {
  Json json;
  for (const auto& [rule, name] : kRules)
    if (rule == calibration.rule) json["rule"] = name;
  json["lengths"] = Json::array();
  for (const Calibration::Length& length : calibration.lengths) {
    Json points = Json::array();
    for (const Calibration::Point& point : length.points)
      points.push_back({{"density", point.density}, {"threshold", point.threshold}});
    json["lengths"].push_back({{"tokens", length.tokens}, {"points", std::move(points)}});
  }
  write_file_atomically((fs::path(folder) / kCalibration).string(), json.dump(1) + "\n");
}

}  // namespace seer
