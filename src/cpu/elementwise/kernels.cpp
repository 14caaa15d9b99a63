#include "cpu/elementwise/kernels.h"

namespace seer::cpu {

const ElementwiseKernels& elementwise_kernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return kElementwiseKernelsPortable;
    case CpuIsa::kAvx2:
      return kElementwiseKernelsAvx2;
    case CpuIsa::kAvx512:
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      break;
  }
  return kElementwiseKernelsAvx512;
}

}  // namespace seer::cpu
