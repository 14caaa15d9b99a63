#include "model/config.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/check.h"
#include "io/tensor_file.h"

namespace seer {
namespace {

using Json = nlohmann::json;

/// A value as messages show it: one line, not too long.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

/// Typed access to one JSON object; every message names the file and the field.
class Fields {
 public:
  Fields(const Json& object, std::string label) : object_(object), label_(std::move(label)) {
    SEER_CHECK(object.is_object(), "{}: expected a JSON object, found {}", label_, object.type_name());
  }

  bool has(const char* name) const {
    const auto found = object_.find(name);
    return found != object_.end() && !found->is_null();
  }
  const Json& raw(const char* name) const { return object_.at(name); }
  std::string label(const char* name) const { return label_ + ": " + name; }
  const std::string& label() const { return label_; }

  std::int64_t integer(const char* name, std::int64_t smallest = 1,
                       std::int64_t largest = std::numeric_limits<std::int32_t>::max()) const {
    SEER_CHECK(has(name), "{}: missing field {} (an integer)", label_, name);
    const Json& value = raw(name);
    SEER_CHECK(value.is_number_integer(), "{}: field {}: expected an integer, found {}", label_, name,
               shown(value));
    const bool too_large =
        value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(largest);
    const std::int64_t number = too_large ? largest : value.get<std::int64_t>();
    SEER_CHECK(!too_large && number >= smallest && number <= largest,
               "{}: field {}: expected {}..{}, found {}", label_, name, smallest, largest, shown(value));
    return number;
  }
  std::int64_t integer_or(const char* name, std::int64_t fallback) const {
    return has(name) ? integer(name) : fallback;
  }
  double number(const char* name) const {
    SEER_CHECK(has(name), "{}: missing field {} (a number)", label_, name);
    const Json& value = raw(name);
    SEER_CHECK(value.is_number() && value.get<double>() > 0 && std::isfinite(value.get<double>()),
               "{}: field {}: expected a positive number, found {}", label_, name, shown(value));
    return value.get<double>();
  }
  double number_or(const char* name, double fallback) const { return has(name) ? number(name) : fallback; }
  bool boolean_or(const char* name, bool fallback) const {
    if (!has(name)) return fallback;
    SEER_CHECK(raw(name).is_boolean(), "{}: field {}: expected true or false, found {}", label_, name,
               shown(raw(name)));
    return raw(name).get<bool>();
  }
  std::string text(const char* name) const {
    SEER_CHECK(has(name), "{}: missing field {} (a string)", label_, name);
    SEER_CHECK(raw(name).is_string(), "{}: field {}: expected a string, found {}", label_, name,
               shown(raw(name)));
    return raw(name).get<std::string>();
  }

 private:
  const Json& object_;
  std::string label_;
};

/// Deeper nesting than any configuration has would overflow the stack when it is printed.
constexpr int kLargestDepth = 64;

Json parse_json(const std::string& text, const std::string& label) {
  const auto check_depth = [&](int depth, Json::parse_event_t, Json&) {
    SEER_CHECK(depth <= kLargestDepth, "{}: JSON nested deeper than {} levels", label, kLargestDepth);
    return true;
  };
  Json json = Json::parse(text, check_depth, /*allow_exceptions=*/false);
  SEER_CHECK(!json.is_discarded(), "{}: not valid JSON", label);
  return json;
}

RopeConfig parse_rope(const Fields& config, std::int64_t max_position_embeddings) {
  RopeConfig rope;
  rope.max_position_embeddings = max_position_embeddings;
  rope.original_max_position_embeddings = max_position_embeddings;
  rope.theta = config.number_or("rope_theta", 10000.0);
  const char* key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) return rope;

  const Fields fields(config.raw(key), config.label(key));
  rope.theta = fields.number_or("rope_theta", rope.theta);
  const char* type_key = fields.has("rope_type") ? "rope_type" : "type";
  const std::string type = fields.text(type_key);
  if (type == "default") return rope;
  rope.factor = fields.number("factor");
  rope.original_max_position_embeddings =
      fields.integer_or("original_max_position_embeddings", max_position_embeddings);
  if (type == "linear") {
    rope.type = RopeType::kLinear;
  } else if (type == "dynamic") {
    rope.type = RopeType::kDynamic;
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
    rope.low_freq_factor = fields.number("low_freq_factor");
    rope.high_freq_factor = fields.number("high_freq_factor");
    SEER_CHECK(rope.high_freq_factor > rope.low_freq_factor,
               "{}: expected high_freq_factor > low_freq_factor, found {} and {}", fields.label(),
               rope.high_freq_factor, rope.low_freq_factor);
  } else if (type == "yarn") {
    rope.type = RopeType::kYarn;
    rope.beta_fast = fields.number_or("beta_fast", 32.0);
    rope.beta_slow = fields.number_or("beta_slow", 1.0);
    if (fields.has("attention_factor")) rope.attention_factor = fields.number("attention_factor");
    if (fields.has("mscale")) rope.mscale = fields.number("mscale");
    if (fields.has("mscale_all_dim")) rope.mscale_all_dim = fields.number("mscale_all_dim");
    rope.truncate = fields.boolean_or("truncate", true);
  } else {
    fail("{}: field {}: expected default, linear, dynamic, yarn or llama3, found \"{}\"", fields.label(),
         type_key, type);
  }
  return rope;
}

void refuse_what_is_not_supported(const Fields& config, const std::string& model_type) {
  const bool window_by_switch = config.has("use_sliding_window");
  const bool window =
      window_by_switch ? config.boolean_or("use_sliding_window", false) : config.has("sliding_window");
  SEER_CHECK(!window, "{}: field {}: sliding-window attention is not supported", config.label(),
             window_by_switch ? "use_sliding_window" : "sliding_window");
  if (config.has("layer_types")) {
    const Json& types = config.raw("layer_types");
    SEER_CHECK(types.is_array(), "{}: field layer_types: expected a list, found {}", config.label(),
               types.type_name());
    for (const Json& type : types)
      SEER_CHECK(type == "full_attention",
                 "{}: field layer_types: only full_attention is supported, found {}", config.label(),
                 shown(type));
  }
  for (const char* name : {"num_experts", "num_local_experts", "n_routed_experts"})
    SEER_CHECK(!config.has(name), "{}: field {}: mixture-of-experts models are not supported", config.label(),
               name);
  SEER_CHECK(!config.has("quantization_config"),
             "{}: field quantization_config: quantised weights are not supported; use the BF16, F16 or F32 "
             "checkpoint",
             config.label());
  if (config.has("partial_rotary_factor"))
    SEER_CHECK(config.number("partial_rotary_factor") == 1.0,
               "{}: field partial_rotary_factor: only 1.0 is supported", config.label());
  for (const char* name : {"hidden_act", "hidden_activation"})
    if (config.has(name))
      SEER_CHECK(config.text(name) == "silu", "{}: field {}: expected silu, found {} (model_type {})",
                 config.label(), name, config.text(name), model_type);
}

std::vector<std::int32_t> parse_token_ids(const Fields& config, const char* name) {
  std::vector<std::int32_t> ids;
  if (!config.has(name)) return ids;
  const Json& value = config.raw(name);
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& id : list) {
    SEER_CHECK(id.is_number_integer() && id.get<std::int64_t>() >= 0 &&
                   id.get<std::int64_t>() < (std::int64_t{1} << 31),
               "{}: field {}: expected token ids, found {}", config.label(), name, shown(value));
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

}  // namespace

ModelConfig parse_model_config(const std::string& text, const std::string& label) {
  const Json json = parse_json(text, label);
  const Fields fields(json, label);
  ModelConfig config;
  config.model_type = fields.text("model_type");
  const bool llama = config.model_type == "llama", mistral = config.model_type == "mistral";
  const bool qwen2 = config.model_type == "qwen2", qwen3 = config.model_type == "qwen3";
  SEER_CHECK(llama || mistral || qwen2 || qwen3,
             "{}: field model_type: expected llama, mistral, qwen2 or qwen3, found \"{}\"", label,
             config.model_type);
  refuse_what_is_not_supported(fields, config.model_type);

  config.num_layers = static_cast<int>(fields.integer("num_hidden_layers", 1, 10000));
  config.hidden_size = static_cast<int>(fields.integer("hidden_size", 1, 1 << 20));
  config.intermediate_size = static_cast<int>(fields.integer("intermediate_size", 1, 1 << 22));
  config.num_heads = static_cast<int>(fields.integer("num_attention_heads", 1, 4096));
  config.num_kv_heads = static_cast<int>(fields.integer_or("num_key_value_heads", config.num_heads));
  SEER_CHECK(config.num_heads % config.num_kv_heads == 0,
             "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", label,
             config.num_heads, config.num_kv_heads);
  if (fields.has("head_dim")) {
    config.head_dim = static_cast<int>(fields.integer("head_dim", 1, 4096));
  } else if (qwen3) {
    config.head_dim = 128;
  } else {
    SEER_CHECK(config.hidden_size % config.num_heads == 0,
               "{}: no head_dim, and hidden_size {} is not a multiple of num_attention_heads {}", label,
               config.hidden_size, config.num_heads);
    config.head_dim = config.hidden_size / config.num_heads;
  }
  SEER_CHECK(config.head_dim % 16 == 0 && config.head_dim <= 256,
             "{}: head_dim: expected a multiple of 16 up to 256, found {}", label, config.head_dim);
  config.vocab_size = fields.integer("vocab_size");
  config.max_position_embeddings = fields.integer("max_position_embeddings");
  config.rms_norm_eps = static_cast<float>(fields.number_or("rms_norm_eps", 1e-6));
  config.tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false);
  const bool bias = fields.boolean_or("attention_bias", false);
  config.attention_bias = qwen2 || bias;
  config.attention_out_bias = !qwen2 && bias;
  config.mlp_bias = fields.boolean_or("mlp_bias", false);
  config.qk_norm = qwen3;
  config.rope = parse_rope(fields, config.max_position_embeddings);
  const auto bos = parse_token_ids(fields, "bos_token_id");
  if (!bos.empty()) config.bos_token_id = bos.front();
  config.eos_token_ids = parse_token_ids(fields, "eos_token_id");
  const char* dtype_key = fields.has("dtype") ? "dtype" : "torch_dtype";
  if (fields.has(dtype_key)) {
    const std::string dtype = fields.text(dtype_key);
    if (dtype == "bfloat16")
      config.torch_dtype = DType::kBF16;
    else if (dtype == "float16")
      config.torch_dtype = DType::kF16;
    else if (dtype == "float32")
      config.torch_dtype = DType::kF32;
    else
      fail("{}: field {}: expected bfloat16, float16 or float32, found \"{}\"", label, dtype_key, dtype);
  }
  return config;
}

ModelConfig load_model_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  ModelConfig config = parse_model_config(read_file(path), path);
  const std::string generation_path = folder + "/generation_config.json";
  if (std::filesystem::exists(generation_path)) {
    const Json json = parse_json(read_file(generation_path), generation_path);
    const auto ids = parse_token_ids(Fields(json, generation_path), "eos_token_id");
    if (!ids.empty()) config.eos_token_ids = ids;
  }
  return config;
}

}  // namespace seer
