// CPU bodies of products with stored weights, one table per instruction set.
#pragma once

#include <cstdint>

#include "core/cpu_isa.h"
#include "core/dtype.h"

namespace seer::cpu {

/// Rows of x that one pass over the weights serves.
inline constexpr int kGemvMaxRows = 8;

/// y[r, j] = x[r, :] . w[j, :] + bias[j] for consecutive rows j of a weight matrix, as stored.
struct GemvPart {
  const float* x = nullptr;   // [m, cols] as `arrange` wrote it
  int m = 0;                  // 1..kGemvMaxRows
  DType dtype = DType::kF32;  // kF32, kF16 or kBF16
  const void* w = nullptr;    // [rows, cols], of any alignment
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const float* bias = nullptr;  // [rows] or nullptr
  float* y = nullptr;           // [m, rows], rows y_stride apart
  std::int64_t y_stride = 0;
  bool add_to_y = false;
};

struct LinearKernels {
  /// Columns are taken this many at a time.
  std::int64_t step;
  /// Writes m rows of x in the order in which weights of this type are read, for gemv: [steps][m][step]
  /// floats, padded with zeros.
  void (*arrange)(DType dtype, const float* x, std::int64_t x_stride, int m, std::int64_t cols, float* out);
  /// An element's bits depend on its own row of x and of w alone.
  void (*gemv)(const GemvPart& part);
  /// Exact conversion to float32.
  void (*widen)(DType dtype, const void* source, float* destination, std::int64_t count);
};

const LinearKernels& linear_kernels(CpuIsa isa);

extern const LinearKernels kLinearKernelsPortable;
extern const LinearKernels kLinearKernelsAvx2;
extern const LinearKernels kLinearKernelsAvx512;

}  // namespace seer::cpu
