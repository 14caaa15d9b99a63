// CPU bodies of the gate's ops, one table per instruction set.
#pragma once

#include <cstdint>

#include "core/cpu_isa.h"

namespace seer::cpu {

/// Columns of `multiply` tiles are padded to a multiple of this by those who pack them.
inline constexpr std::int64_t kGateTileColumns = 64;

struct GateKernels {
  /// Pools one block of `tokens` rows of x (row stride `stride`) over `dim` channels: maximum, minimum and
  /// mean to the [dim] outputs that are not nullptr.
  void (*pool)(const float* x, std::int64_t tokens, std::int64_t stride, std::int64_t dim, float* max,
               float* min, float* avg);

  /// out[r, c] = scale * sum_k x[r, k] * w[k, c] for c < cols. The sum runs over k in rising order for every
  /// element, so that a row's bits do not depend on the rows around it.
  void (*multiply)(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t inner,
                   const float* w, std::int64_t w_stride, std::int64_t cols, float scale, float* out,
                   std::int64_t out_stride);
};

const GateKernels& gate_kernels(CpuIsa isa);

extern const GateKernels kGateKernelsPortable;
extern const GateKernels kGateKernelsAvx2;
extern const GateKernels kGateKernelsAvx512;

}  // namespace seer::cpu
