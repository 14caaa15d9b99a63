#include <cmath>
#include <span>

#include "core/check.h"
#include "cuda/elementwise.h"
#include "cuda_model/cuda_transformer_impl.h"
#include "cuda_model/decode_state.h"
#include "cuda_model/prefill_scratch.h"

namespace seer {

void DeviceRope::fill(const RopeTable& table, std::int64_t step, std::int64_t count, cudaStream_t stream) {
  const std::int64_t half = table.dim() / 2;
  cos.reserve_discard(count * half);
  sin.reserve_discard(count * half);
  inv_freq_.reserve_discard(half);
  cuda::check(
      cudaMemcpyAsync(inv_freq_.data(), table.inv_freq().data(),
                      static_cast<std::size_t>(half) * sizeof(double), cudaMemcpyHostToDevice, stream),
      "RoPE");
  cuda::rope_table(inv_freq_.data(), table.dim(), table.attention_factor(), 0, step, count, cos.data(),
                   sin.data(), stream);
}

CudaTransformer::CudaTransformer(DeviceWeights weights, const ModelConfig& config, const Context& context,
                                 const TransformerOptions& options)
    : CudaTransformer(std::move(weights), config, context, options, std::make_shared<OwnedStream>()) {}

CudaTransformer::CudaTransformer(DeviceWeights weights, const ModelConfig& config, const Context& context,
                                 const TransformerOptions& options, std::shared_ptr<OwnedStream> stream)
    : CudaTransformer(std::move(weights), config, context, options, stream,
                      std::make_shared<DevicePages>(config, options.gpu_dtype, stream->get())) {}

CudaTransformer::CudaTransformer(DeviceWeights weights, const ModelConfig& config, const Context& context,
                                 const TransformerOptions& options, std::shared_ptr<OwnedStream> stream,
                                 std::shared_ptr<DevicePages> pages)
    : Transformer(config, context, options, pages),
      weights_(std::move(weights)),
      stream_(std::move(stream)),
      pages_(std::move(pages)),
      timer_(stream_->get()),
      prefill_(std::make_unique<PrefillScratch>()),
      decode_(std::make_unique<DecodeState>()) {
  SEER_CHECK(config.head_dim == 64 || config.head_dim == 128,
             "--device cuda: the kernels need a head_dim of 64 or 128, found {}; use --device cpu",
             config.head_dim);
  SEER_CHECK(config.hidden_size % 8 == 0 && config.intermediate_size % 8 == 0,
             "--device cuda: hidden_size and intermediate_size must be multiples of 8, found {} and {}; use "
             "--device cpu",
             config.hidden_size, config.intermediate_size);
  plan_context();
  rope_.fill(rope_for(1), 1, max_context_, stream_->get());
  stream_->wait("RoPE");
}

CudaTransformer::~CudaTransformer() = default;

float CudaTransformer::scale() const { return 1.0f / std::sqrt(static_cast<float>(config_.head_dim)); }

void CudaTransformer::product(const void* x, std::int64_t m, const std::uint16_t* w, std::int64_t n,
                              std::int64_t k, void* y, const void* bias, Output output) {
  const DType out = output == Output::kRounded ? dtype() : DType::kF32;
  if (m <= cuda::kMaxGemvRows) {
    cuda::gemv({.x = x,
                .w = w,
                .y = y,
                .m = static_cast<int>(m),
                .n = n,
                .k = k,
                .dtype = dtype(),
                .out_dtype = out,
                .bias = bias,
                .add_to_y = output == Output::kAdded},
               stream_->get());
    return;
  }
  blas_.matmul({.a = x,
                .lda = k,
                .b = w,
                .ldb = k,
                .c = y,
                .ldc = n,
                .m = m,
                .n = n,
                .k = k,
                .transpose_b = true,
                .dtype = dtype(),
                .out_dtype = out,
                .beta = output == Output::kAdded ? 1.0f : 0.0f,
                .bias = bias},
               stream_->get());
}

void CudaTransformer::run_mlp(const DeviceLayer& layer, std::int64_t rows, float* x, std::uint16_t* normed,
                              std::uint16_t* gate_up, std::uint16_t* activated) {
  const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  product(normed, rows, layer.gate_up.data(), 2 * inner, hidden, gate_up, layer.gate_up_bias.data());
  cuda::silu_multiply(gate_up, dtype(), rows, inner, activated, stream_->get());
  product(activated, rows, layer.down.data(), hidden, inner, x, layer.down_bias.data(), Output::kAdded);
}

void CudaTransformer::compute_logits(const float* x, std::int64_t rows, std::uint16_t* normed,
                                     float* logits) {
  const std::int64_t hidden = config_.hidden_size;
  cuda::rms_norm(x, weights_.final_norm.data(), config_.rms_norm_eps, rows, hidden, normed, dtype(),
                 stream_->get());
  product(normed, rows, weights_.head(), config_.vocab_size, hidden, logits, nullptr, Output::kFloat);
}

std::unique_ptr<Transformer> make_cuda_transformer(const ModelWeights& weights, const ModelConfig& config,
                                                   const Context& context,
                                                   const TransformerOptions& options) {
  return std::make_unique<CudaTransformer>(upload_weights(weights, config, options.gpu_dtype), config,
                                           context, options);
}

std::unique_ptr<Transformer> make_random_cuda_transformer(std::uint64_t seed, const ModelConfig& config,
                                                          const Context& context,
                                                          const TransformerOptions& options) {
  return std::make_unique<CudaTransformer>(random_weights(seed, config, options.gpu_dtype), config, context,
                                           options);
}

}  // namespace seer
