#include "cpu/linear/kernels.h"

namespace seer::cpu {

const LinearKernels& linear_kernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return kLinearKernelsPortable;
    case CpuIsa::kAvx2:
      return kLinearKernelsAvx2;
    case CpuIsa::kAvx512:
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      break;
  }
  return kLinearKernelsAvx512;
}

}  // namespace seer::cpu
