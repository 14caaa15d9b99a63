#include "cuda/decode.cuh"

namespace seer::cuda {

template void launch_decode<__nv_bfloat16, 64>(const DecodeMaps&, const DecodeArguments&, CUstream_st*);
template void launch_decode<__nv_bfloat16, 128>(const DecodeMaps&, const DecodeArguments&, CUstream_st*);
template void launch_decode<__half, 64>(const DecodeMaps&, const DecodeArguments&, CUstream_st*);
template void launch_decode<__half, 128>(const DecodeMaps&, const DecodeArguments&, CUstream_st*);

}  // namespace seer::cuda
