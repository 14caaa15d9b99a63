#include "cuda_model/device_weights.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/check.h"
#include "cuda/elementwise.h"
#include "cuda_model/memory_plan.h"

namespace seer {
namespace {

std::int64_t parameters(const ModelConfig& c) {
  const std::int64_t hidden = c.hidden_size;
  const std::int64_t layer =
      hidden * (2 * c.q_size() + 2 * c.kv_size() + 3 * std::int64_t{c.intermediate_size});
  return c.num_layers * layer + (c.tie_word_embeddings ? 1 : 2) * hidden * c.vocab_size;
}

void check_room(const ModelConfig& config) {
  const DeviceMemory memory = device_memory();
  const std::int64_t wanted = 2 * parameters(config);
  SEER_CHECK(wanted < memory.free_bytes,
             "GPU memory: the weights need {:.2f} GiB in 16 bits, {:.2f} of {:.2f} GiB are free",
             gibibytes(wanted), gibibytes(memory.free_bytes), gibibytes(memory.total_bytes));
}

/// Copies matrices and vectors to the device in the model's dtype.
class Uploader {
 public:
  explicit Uploader(DType dtype) : dtype_(dtype) {}

  DeviceHalves join(std::initializer_list<MatrixView> parts) {
    std::int64_t size = 0;
    for (const MatrixView& part : parts) size += part.rows * part.cols;
    DeviceHalves out(size);
    std::uint16_t* place = out.data();
    for (const MatrixView& part : parts) {
      copy(part.data, part.dtype, part.rows * part.cols, place);
      place += part.rows * part.cols;
    }
    return out;
  }
  DeviceHalves join(std::initializer_list<std::span<const float>> parts) {
    std::int64_t size = 0;
    for (const auto part : parts) size += static_cast<std::int64_t>(part.size());
    DeviceHalves out(size);
    std::uint16_t* place = out.data();
    for (const auto part : parts) {
      copy(part.data(), DType::kF32, static_cast<std::int64_t>(part.size()), place);
      place += part.size();
    }
    return out;
  }
  static DeviceFloats floats(const std::vector<float>& values) {
    return values.empty() ? DeviceFloats() : DeviceFloats(std::span(values));
  }

 private:
  void copy(const void* data, DType dtype, std::int64_t count, std::uint16_t* out) {
    const auto bytes = static_cast<std::size_t>(count) * static_cast<std::size_t>(size_of(dtype));
    if (dtype == dtype_) {
      cuda::check(cudaMemcpy(out, data, bytes, cudaMemcpyHostToDevice), "copy of the weights");
      return;
    }
    staging_.reserve_discard(static_cast<std::int64_t>(bytes));
    cuda::check(cudaMemcpy(staging_.data(), data, bytes, cudaMemcpyHostToDevice), "copy of the weights");
    cuda::convert(staging_.data(), dtype, out, dtype_, count, nullptr);
    cuda::check(cudaDeviceSynchronize(), "conversion of the weights");
  }

  DType dtype_;
  cuda::DeviceArray<std::byte> staging_;
};

}  // namespace

std::int64_t DeviceWeights::matrix_bytes() const {
  std::int64_t elements = lm_head.size() > 0 ? lm_head.size() : embedding.size();
  for (const DeviceLayer& layer : layers)
    elements += layer.qkv.size() + layer.o.size() + layer.gate_up.size() + layer.down.size();
  return 2 * elements;
}

DeviceHalves upload_rounded(std::span<const float> values, DType dtype) {
  return values.empty() ? DeviceHalves() : Uploader(dtype).join({values});
}

DeviceHalves upload_rounded(const Buffer<float>& values, DType dtype) {
  return upload_rounded({values.data(), static_cast<std::size_t>(values.size())}, dtype);
}

DeviceWeights upload_weights(const ModelWeights& weights, const ModelConfig& config, DType dtype) {
  check_room(config);
  Uploader upload(dtype);
  DeviceWeights out;
  out.dtype = dtype;
  out.embedding = upload.join({weights.embedding});
  if (!config.tie_word_embeddings) out.lm_head = upload.join({weights.lm_head});
  out.final_norm = Uploader::floats(weights.final_norm);
  for (const LayerWeights& layer : weights.layers) {
    DeviceLayer& made = out.layers.emplace_back();
    made.qkv = upload.join({layer.q, layer.k, layer.v});
    made.o = upload.join({layer.o});
    made.gate_up = upload.join({layer.gate, layer.up});
    made.down = upload.join({layer.down});
    made.input_norm = Uploader::floats(layer.input_norm);
    made.post_attention_norm = Uploader::floats(layer.post_attention_norm);
    made.q_norm = Uploader::floats(layer.q_norm);
    made.k_norm = Uploader::floats(layer.k_norm);
    if (!layer.q_bias.empty()) made.qkv_bias = upload.join({layer.q_bias, layer.k_bias, layer.v_bias});
    if (!layer.gate_bias.empty()) made.gate_up_bias = upload.join({layer.gate_bias, layer.up_bias});
    made.o_bias = Uploader::floats(layer.o_bias);
    made.down_bias = Uploader::floats(layer.down_bias);
  }
  return out;
}

DeviceWeights random_weights(std::uint64_t seed, const ModelConfig& config, DType dtype) {
  check_room(config);
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t q_size = config.q_size(), kv_size = config.kv_size();
  std::uint64_t stream = seed * 1000003;
  const auto matrix = [&](std::int64_t rows, std::int64_t cols) {
    DeviceHalves out(rows * cols);
    cuda::fill_uniform(out.data(), dtype, out.size(), std::sqrt(3.0f / static_cast<float>(cols)), ++stream,
                       nullptr);
    return out;
  };
  const auto norm = [](std::int64_t size) {
    return DeviceFloats(std::span<const float>(std::vector<float>(static_cast<std::size_t>(size), 1.0f)));
  };
  DeviceWeights out;
  out.dtype = dtype;
  out.embedding = matrix(config.vocab_size, hidden);
  if (!config.tie_word_embeddings) out.lm_head = matrix(config.vocab_size, hidden);
  out.final_norm = norm(hidden);
  for (int i = 0; i < config.num_layers; ++i) {
    DeviceLayer& layer = out.layers.emplace_back();
    layer.qkv = matrix(q_size + 2 * kv_size, hidden);
    layer.o = matrix(hidden, q_size);
    layer.gate_up = matrix(2 * inner, hidden);
    layer.down = matrix(hidden, inner);
    layer.input_norm = norm(hidden);
    layer.post_attention_norm = norm(hidden);
    if (config.qk_norm) {
      layer.q_norm = norm(config.head_dim);
      layer.k_norm = norm(config.head_dim);
    }
    if (config.attention_bias) layer.qkv_bias = matrix(q_size + 2 * kv_size, 1);
  }
  cuda::check(cudaDeviceSynchronize(), "random weights");
  return out;
}

}  // namespace seer
