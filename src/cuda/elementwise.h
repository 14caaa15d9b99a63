// The small ops of a model on the GPU. Every pointer is device memory, calls are asynchronous on `stream`;
// dtype is kBF16 or kF16, activations between the layers (x) are float32. Maths: ops/elementwise.h.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "cuda/attention.h"

namespace seer::cuda {

/// x[t, :] = table[ids[t], :]; table [vocab, hidden] of dtype, hidden a multiple of 8. ids are not checked.
void embedding(const void* table, DType dtype, const std::int32_t* ids, std::int64_t tokens,
               std::int64_t hidden, float* x, Stream stream);

/// out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight, rounded to dtype; size a multiple of 4.
void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t size, void* out,
              DType dtype, Stream stream);

/// out[r, i] = silu(gate_up[r, i]) * gate_up[r, inner + i]; inner a multiple of 8.
void silu_multiply(const void* gate_up, DType dtype, std::int64_t rows, std::int64_t inner, void* out,
                   Stream stream);

/// nll[r] = logsumexp(logits[r, :]) - logits[r, targets[r]], float32 sums of fixed order. targets are not
/// checked.
void cross_entropy(const float* logits, std::int64_t rows, std::int64_t vocab, const std::int32_t* targets,
                   float* nll, Stream stream);

/// Rounds `count` values of kF32, kBF16 or kF16 to kBF16 or kF16.
void convert(const void* in, DType from, void* out, DType to, std::int64_t count, Stream stream);

/// Uniform values in (-range, range) that depend on (seed, index) alone.
void fill_uniform(void* out, DType dtype, std::int64_t count, float range, std::uint64_t seed, Stream stream);

/// y = x * w^T (+ bias) (+ y): the product of a decoding step, as fast as w can be read.
struct GemvParams {
  const void* x = nullptr;  // [m, k] of dtype
  const void* w = nullptr;  // [n, k] of dtype
  void* y = nullptr;        // [m, n] of out_dtype
  int m = 1;                // 1 to kMaxGemvRows
  std::int64_t n = 0;
  std::int64_t k = 0;  // a multiple of 8
  DType dtype = DType::kBF16;
  DType out_dtype = DType::kBF16;  // dtype or kF32
  const void* bias = nullptr;      // [n] of out_dtype
  bool add_to_y = false;
};
inline constexpr int kMaxGemvRows = 4;
void gemv(const GemvParams& params, Stream stream);

}  // namespace seer::cuda
