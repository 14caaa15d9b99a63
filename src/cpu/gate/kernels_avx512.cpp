// GCC 12 takes the don't-care operand inside its own AVX-512 maximum for an uninitialised variable.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "cpu/gate/kernels_body.h"
#include "cpu/simd_avx512.h"

namespace seer::cpu {

const GateKernels kGateKernelsAvx512 = make_gate_kernels<Avx512>();

}  // namespace seer::cpu
