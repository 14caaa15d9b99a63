#include "cpu/gate/kernels_body.h"
#include "cpu/simd_portable.h"

namespace seer::cpu {

const GateKernels kGateKernelsPortable = make_gate_kernels<Portable>();

}  // namespace seer::cpu
