#include "cpu/decode/kernels_body.h"
#include "cpu/simd_portable.h"

namespace seer::cpu {

const DecodeKernels kDecodeKernelsPortable = {decode_body::attend<Portable>, decode_body::combine<Portable>};

}  // namespace seer::cpu
