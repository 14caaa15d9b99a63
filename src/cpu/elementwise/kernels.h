// CPU bodies of the small ops around attention and projections, one table per instruction set.
#pragma once

#include <cstdint>

#include "core/cpu_isa.h"

namespace seer::cpu {

struct ElementwiseKernels {
  /// One row: out = x / sqrt(mean(x^2) + eps) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t size, float* out);
  /// `heads` vectors of `dim` elements of one token, rotate-half; cos and sin [dim / 2]; out may be x.
  void (*rope)(const float* x, const float* cos, const float* sin, std::int64_t heads, std::int64_t dim,
               float* out);
  /// gate = silu(gate) * up; silu's relative error is below 1e-6 (1e-37 absolute).
  void (*silu_multiply)(float* gate, const float* up, std::int64_t count);
  /// log(sum(exp(x))): the maximum in float32, exponentials in float32 (relative error below 4e-7), sums of
  /// 1024 at a time in float32 and of these in float64.
  double (*log_sum_exp)(const float* x, std::int64_t count);
};

const ElementwiseKernels& elementwise_kernels(CpuIsa isa);

extern const ElementwiseKernels kElementwiseKernelsPortable;
extern const ElementwiseKernels kElementwiseKernelsAvx2;
extern const ElementwiseKernels kElementwiseKernelsAvx512;

}  // namespace seer::cpu
