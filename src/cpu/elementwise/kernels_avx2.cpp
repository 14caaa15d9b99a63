#include "cpu/elementwise/kernels_body.h"
#include "cpu/simd_avx2.h"

namespace seer::cpu {

const ElementwiseKernels kElementwiseKernelsAvx2 = {
    elementwise_body::rms_norm<Avx2>, elementwise_body::rope<Avx2>, elementwise_body::silu_multiply<Avx2>,
    elementwise_body::log_sum_exp<Avx2>};

}  // namespace seer::cpu
