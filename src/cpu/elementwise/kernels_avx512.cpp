#include "cpu/elementwise/kernels_body.h"
#include "cpu/simd_avx512.h"

namespace seer::cpu {

const ElementwiseKernels kElementwiseKernelsAvx512 = {
    elementwise_body::rms_norm<Avx512>, elementwise_body::rope<Avx512>,
    elementwise_body::silu_multiply<Avx512>, elementwise_body::log_sum_exp<Avx512>};

}  // namespace seer::cpu
