#include "cpu/gate/kernels_body.h"
#include "cpu/simd_avx2.h"

namespace seer::cpu {

const GateKernels kGateKernelsAvx2 = make_gate_kernels<Avx2>();

}  // namespace seer::cpu
