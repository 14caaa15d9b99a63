// Matrix products on the GPU through cuBLASLt, which is opened when the first Blas is made: the program does
// not link it and starts on machines without it. Only in builds with CUDA.
#pragma once

#include <cstdint>
#include <memory>

#include "core/dtype.h"
#include "cuda/attention.h"

namespace seer::cuda {

/// c = alpha * op(a) * op(b) + beta * c (+ bias), row-major, float32 accumulation; `batch` products at
/// constant distances. Leading dimensions and distances are in elements.
struct MatmulParams {
  const void* a = nullptr;  // [m, k], or [k, m] if transpose_a
  std::int64_t lda = 0;
  std::int64_t stride_a = 0;
  const void* b = nullptr;  // [k, n], or [n, k] if transpose_b (a weight matrix of Hugging Face)
  std::int64_t ldb = 0;
  std::int64_t stride_b = 0;
  void* c = nullptr;  // [m, n]
  std::int64_t ldc = 0;
  std::int64_t stride_c = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  int batch = 1;
  bool transpose_a = false;
  bool transpose_b = false;
  DType dtype = DType::kBF16;      // of a and b: kBF16, kF16 or kF32 (true float32 products, no tf32)
  DType out_dtype = DType::kBF16;  // of c and bias: dtype or kF32
  float alpha = 1;
  float beta = 0;
  const void* bias = nullptr;  // [n], added to every row
};

/// A handle with its workspace and the plans of the shapes seen so far. Products of one handle must run on
/// one stream. Same inputs and shapes, same bits.
class Blas {
 public:
  /// Throws Error naming the library and how to have it found when it cannot be opened.
  Blas();
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  /// Asynchronous; may be captured into a graph. Throws Error when cuBLASLt refuses the product.
  void matmul(const MatmulParams& params, Stream stream);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::cuda
