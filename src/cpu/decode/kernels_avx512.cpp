#include "cpu/decode/kernels_body.h"
#include "cpu/simd_avx512.h"

namespace seer::cpu {

const DecodeKernels kDecodeKernelsAvx512 = {decode_body::attend<Avx512>, decode_body::combine<Avx512>};

}  // namespace seer::cpu
