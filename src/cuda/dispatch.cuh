// From run-time values to the template arguments of kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "core/dtype.h"

namespace seer::cuda {

/// Calls run(T{}, integral_constant of the head dimension): T bf16 or fp16, 64 or 128 channels.
template <class Run>
void dispatch(DType dtype, int head_dim, const Run& run) {
  const auto with_type = [&](auto type) {
    if (head_dim == 128) {
      run(type, std::integral_constant<int, 128>{});
    } else {
      run(type, std::integral_constant<int, 64>{});
    }
  };
  if (dtype == DType::kBF16) {
    with_type(__nv_bfloat16{});
  } else {
    with_type(__half{});
  }
}

}  // namespace seer::cuda
