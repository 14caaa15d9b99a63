// Matrix products with frozen weights, as stored.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/dtype.h"

namespace seer {

/// A weight matrix [rows, cols], row-major as Hugging Face stores nn.Linear ([out_features, in_features]).
struct MatrixView {
  DType dtype = DType::kF32;  // kF32, kF16 or kBF16
  const void* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// y[m, w.rows] = x[m, w.cols] * w^T + bias, in float32 (bf16 products with float32 accumulation where
/// `allow_bf16` is set and the CPU has the instructions). bias is float32 [w.rows] or nullptr. `add_to_y`
/// adds to what y holds. x and y are row-major with the given strides in elements. m of a few rows runs
/// bandwidth-bound on the stored weights; larger m widens slices of w into a small scratch and calls oneDNN's
/// GEMM.
struct LinearParams {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t m = 0;
  MatrixView w{};
  const float* bias = nullptr;
  bool add_to_y = false;
  bool allow_bf16 = false;
};
void linear(const Context& context, const LinearParams& params);

/// Several products of the same x in one parallel pass (q|k|v, gate|up); outputs differ. For m of a few rows
/// it saves the barriers between them.
void linear_many(const Context& context, const LinearParams* params, int count);

/// Plain float32 product C[m, n] = alpha * op(A) * op(B) + beta * C, row-major, by oneDNN on the calling
/// thread's OpenMP team. trans_x: x is stored transposed.
void sgemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
           const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
           std::int64_t ldc);

}  // namespace seer
