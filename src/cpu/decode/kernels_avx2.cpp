#include "cpu/decode/kernels_body.h"
#include "cpu/simd_avx2.h"

namespace seer::cpu {

const DecodeKernels kDecodeKernelsAvx2 = {decode_body::attend<Avx2>, decode_body::combine<Avx2>};

}  // namespace seer::cpu
