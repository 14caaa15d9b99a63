#include "cpu/elementwise/kernels_body.h"
#include "cpu/simd_portable.h"

namespace seer::cpu {

const ElementwiseKernels kElementwiseKernelsPortable = {
    elementwise_body::rms_norm<Portable>, elementwise_body::rope<Portable>,
    elementwise_body::silu_multiply<Portable>, elementwise_body::log_sum_exp<Portable>};

}  // namespace seer::cpu
