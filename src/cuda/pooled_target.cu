#include "cuda/pooled_target.cuh"

namespace seer::cuda {

template void launch_pooled_target<__nv_bfloat16, 128>(const TargetMaps&, const TargetArguments&,
                                                       CUstream_st*);
template void launch_pooled_target<__nv_bfloat16, 64>(const TargetMaps&, const TargetArguments&,
                                                      CUstream_st*);
template void launch_pooled_target<__half, 128>(const TargetMaps&, const TargetArguments&, CUstream_st*);
template void launch_pooled_target<__half, 64>(const TargetMaps&, const TargetArguments&, CUstream_st*);

}  // namespace seer::cuda
