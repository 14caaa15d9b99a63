#include "cpu/gate/kernels.h"

namespace seer::cpu {

const GateKernels& gate_kernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return kGateKernelsPortable;
    case CpuIsa::kAvx2:
      return kGateKernelsAvx2;
    case CpuIsa::kAvx512:
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      break;
  }
  return kGateKernelsAvx512;
}

}  // namespace seer::cpu
