// A decode gate of random weights for the embedded model, for tests that link the library's files.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/tensor_file.h"
#include "support/compare.h"
#include "support/golden.h"

namespace seer::test {

/// Of 8 layers, 8 heads and 2 KV heads of 128; gate size 16. The folder is made.
inline void write_decode_gate(const std::filesystem::path& folder, bool torch_format = false) {
  constexpr std::int64_t kDim = 16;
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  const auto add = [&](int layer, const std::string& part, std::vector<std::int64_t> shape) {
    std::int64_t size = 1;
    for (const std::int64_t extent : shape) size *= extent;
    fill_normal(values.emplace_back(static_cast<std::size_t>(size)), values.size(), 0.1f);
    tensors.push_back({.name = "model.layers." + std::to_string(layer) + ".self_attn.attn_gate.attngate_" +
                               part + ".weight",
                       .shape = std::move(shape),
                       .data = values.back().data()});
  };
  for (int layer = 0; layer < 8; ++layer) {
    add(layer, "linear_q", {2, 4, 128, kDim});
    add(layer, "linear_k", {2, 3 * 128, kDim});
  }
  std::filesystem::create_directories(folder);
  std::ifstream model(embedded_model() / "config.json");
  nlohmann::json config = nlohmann::json::parse(model);
  config["seerattn_q_head_pooling_type"] = "Qproj";
  config["seerattn_k_seq_pooling_type"] = "Kmaxminavg";
  config["seerattn_gate_hidden_size"] = kDim;
  std::ofstream(folder / "config.json") << config.dump();
  if (torch_format)
    write_torch((folder / "attn_gate_weights.pth").string(), tensors);
  else
    write_safetensors((folder / "attn_gate_weights.safetensors").string(), tensors);
}

}  // namespace seer::test
