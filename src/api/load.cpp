#include "api/load.h"

#include "core/check.h"
#include "cuda/attention.h"
#include "cuda_model/cuda_transformer.h"
#include "model/cpu_transformer.h"

namespace seer {

Device device_of(const ModelOptions& options) {
  SEER_CHECK(options.device == "cpu" || options.device == "cuda",
             "--device: expected cpu or cuda, found \"{}\"", options.device);
  if (options.device == "cpu") return Device::kCpu;
  std::string reason;
  SEER_CHECK(cuda::available(&reason), "--device cuda: {}; use --device cpu", reason);
  return Device::kCuda;
}

TransformerOptions transformer_options(const ModelOptions& options, DType weights) {
  const bool on_gpu = device_of(options) == Device::kCuda;
  const std::string& dtype = options.dtype;
  SEER_CHECK(dtype == "auto" || dtype == "bfloat16" || dtype == (on_gpu ? "float16" : "float32"),
             "--dtype: expected {}, bfloat16 or auto on the {}, found \"{}\"", on_gpu ? "float16" : "float32",
             on_gpu ? "GPU" : "CPU", dtype);
  TransformerOptions made;
  made.allow_bf16 = dtype != "float32";
  made.kv_dtype = made.allow_bf16 ? DType::kBF16 : DType::kF32;
  made.gpu_dtype =
      dtype == "float16" || (dtype == "auto" && weights == DType::kF16) ? DType::kF16 : DType::kBF16;
  made.max_context = options.max_context;
  return made;
}

std::string_view dtype_name(Device device, const TransformerOptions& options) {
  if (device == Device::kCuda) return options.gpu_dtype == DType::kF16 ? "float16" : "bfloat16";
  return options.allow_bf16 ? "bfloat16" : "float32";
}

std::unique_ptr<Transformer> load_transformer(const std::string& folder, const ModelConfig& config,
                                              const ModelOptions& options) {
  const Device device = device_of(options);
  const Context context(options.threads);
  auto weights = std::make_shared<const ModelWeights>(ModelWeights::load(folder, config));
  const TransformerOptions made = transformer_options(options, weights->embedding.dtype);
  if (device == Device::kCuda) return make_cuda_transformer(*weights, config, context, made);
  return std::make_unique<CpuTransformer>(std::move(weights), config, context, made);
}

}  // namespace seer
