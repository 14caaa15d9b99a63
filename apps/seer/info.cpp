// seer info: what would run.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "cuda/attention.h"
#include "model/decode_gate.h"

using namespace seer;

namespace {

struct Flags {
  ModelFlags model;
  bool json = false;
};

std::string_view name_of(RopeType type) {
  constexpr std::array<std::string_view, 5> names{"default", "linear", "dynamic", "yarn", "llama3"};
  return names[static_cast<std::size_t>(type)];
}

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

/// Bytes of the KV cache for a context of `tokens`, in whole pages.
std::int64_t kv_bytes(const ModelConfig& config, DType dtype, std::int64_t tokens) {
  return blocks_for(tokens) * config.num_layers *
         PagedKv::page_bytes(dtype, config.num_kv_heads, config.head_dim);
}

nlohmann::ordered_json describe_gate(const std::string& folder, const Gate& gate) {
  std::int64_t parameters = 0;
  for (const GateLayer& layer : gate.layers) parameters += layer.k_weight.size() + layer.q_weight.size();
  nlohmann::ordered_json json{{"folder", folder},
                              {"type", gate.config.gate_type},
                              {"hidden_size", gate.config.gate_hidden_size},
                              {"parameters", parameters},
                              {"calibrated_lengths", nlohmann::json::array()}};
  if (gate.calibration)
    for (const Calibration::Length& length : gate.calibration->lengths)
      json["calibrated_lengths"].push_back(length.tokens);
  return json;
}

nlohmann::ordered_json describe_gate(const std::string& folder, const DecodeGate& gate) {
  std::int64_t parameters = 0;
  for (const DecodeGateLayer& layer : gate.layers)
    parameters += layer.k_weight.size() + layer.q_weight.size() + layer.k_norm.size() + layer.q_norm.size();
  return {{"folder", folder},
          {"type", "decode gate"},
          {"hidden_size", gate.gate_hidden_size},
          {"parameters", parameters}};
}

nlohmann::ordered_json describe_gate(const std::string& folder, const ModelConfig& config) {
  if (folder.empty()) return nullptr;
  if (is_decode_gate_folder(folder)) return describe_gate(folder, load_decode_gate(folder, config));
  return describe_gate(folder, seer::load_gate(folder, config));
}

nlohmann::ordered_json describe(const ModelFlags& flags) {
  const Device device = device_of(flags);
  const Context context(flags.threads);
  const std::string folder = model_folder(flags);
  const ModelConfig config = load_model_config(folder);
  const ModelWeights weights = ModelWeights::load(folder, config);
  const TransformerOptions options = transformer_options(flags, weights.embedding.dtype);

  nlohmann::ordered_json json{{"version", SEER_VERSION},
                              {"model",
                               {{"folder", folder},
                                {"type", config.model_type},
                                {"parameters", weights.num_parameters},
                                {"weight_bytes", weights.num_bytes},
                                {"weight_dtype", name_of(weights.embedding.dtype)},
                                {"layers", config.num_layers},
                                {"hidden_size", config.hidden_size},
                                {"heads", config.num_heads},
                                {"kv_heads", config.num_kv_heads},
                                {"head_dim", config.head_dim},
                                {"vocab_size", config.vocab_size},
                                {"max_position_embeddings", config.max_position_embeddings},
                                {"rope_type", name_of(config.rope.type)},
                                {"rope_theta", config.rope.theta}}}};
  json["gate"] = describe_gate(gate_folder(flags), config);

  json["memory"] = nlohmann::json::array();
  const std::int64_t longest = flags.max_context > 0 ? flags.max_context : config.max_position_embeddings;
  for (std::int64_t tokens = 4096;; tokens *= 2) {
    const std::int64_t context_tokens = std::min(tokens, longest);
    const std::int64_t cache =
        kv_bytes(config, device == Device::kCuda ? options.gpu_dtype : options.kv_dtype, context_tokens);
    json["memory"].push_back(
        {{"context", context_tokens}, {"kv_cache_bytes", cache}, {"total_bytes", cache + weights.num_bytes}});
    if (tokens >= longest) break;
  }
  json["dtype"] = dtype_name(device, options);
  json["device"] = {
      {"name", name_of(device)}, {"isa", name_of(context.isa())}, {"threads", context.num_threads()}};
  if (device == Device::kCuda) {
    const cuda::DeviceInfo gpu = cuda::device_info();
    json["device"]["gpu"] = gpu.name;
    json["device"]["gpu_memory_bytes"] = gpu.memory_bytes;
    json["device"]["gpu_free_bytes"] = gpu.free_bytes;
  }
  return json;
}

void print(const nlohmann::ordered_json& json) {
  const auto& model = json["model"];
  const auto text = [](const nlohmann::ordered_json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  fmt::print("model    {}\n", text(model["folder"]));
  fmt::print("         {}, {:.1f} M parameters, {:.1f} MiB of {}\n", text(model["type"]),
             model["parameters"].get<double>() / 1e6, mebibytes(model["weight_bytes"].get<std::int64_t>()),
             text(model["weight_dtype"]));
  fmt::print("         {} layers, hidden size {}, {} heads and {} KV heads of {}, vocabulary {}\n",
             text(model["layers"]), text(model["hidden_size"]), text(model["heads"]), text(model["kv_heads"]),
             text(model["head_dim"]), text(model["vocab_size"]));
  fmt::print("         context {} tokens, RoPE {} with theta {}\n", text(model["max_position_embeddings"]),
             text(model["rope_type"]), text(model["rope_theta"]));
  const auto& gate = json["gate"];
  if (gate.is_null()) {
    fmt::print("gate     none; train one with seer distill, or name one with --gate\n");
  } else {
    fmt::print("gate     {}\n", text(gate["folder"]));
    fmt::print("         {}, hidden size {}, {:.1f} M parameters\n", text(gate["type"]),
               text(gate["hidden_size"]), gate["parameters"].get<double>() / 1e6);
    if (gate.contains("calibrated_lengths")) {
      std::string lengths;
      for (const auto& length : gate["calibrated_lengths"])
        lengths += (lengths.empty() ? "" : ", ") + text(length);
      fmt::print("         calibrated for densities at {}\n",
                 lengths.empty() ? "no length: run seer calibrate" : lengths + " tokens");
    }
  }
  fmt::print("device   {}, {}, {} threads, {}\n", text(json["device"]["name"]), text(json["device"]["isa"]),
             text(json["device"]["threads"]), text(json["dtype"]));
  if (json["device"].contains("gpu"))
    fmt::print("         {}, {:.0f} of {:.0f} MiB free\n", text(json["device"]["gpu"]),
               mebibytes(json["device"]["gpu_free_bytes"].get<std::int64_t>()),
               mebibytes(json["device"]["gpu_memory_bytes"].get<std::int64_t>()));
  fmt::print("memory   context     KV cache   with weights\n");
  for (const auto& row : json["memory"])
    fmt::print("         {:>7}  {:>7.0f} MiB  {:>9.0f} MiB\n", text(row["context"]),
               mebibytes(row["kv_cache_bytes"].get<std::int64_t>()),
               mebibytes(row["total_bytes"].get<std::int64_t>()));
}

}  // namespace

void add_info(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *parent.add_subcommand("info", "What would run: model, gate, memory, CPU");
  add_model_argument(command, flags->model);
  add_gate_flag(command, flags->model);
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.add_flag("--json", flags->json, "print one JSON object");
  command.callback([flags] {
    const nlohmann::ordered_json json = describe(flags->model);
    if (flags->json)
      fmt::print("{}\n", json.dump(2));
    else
      print(json);
  });
}
