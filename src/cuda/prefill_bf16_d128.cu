#include "cuda/prefill.cuh"

namespace seer::cuda {

template void launch_prefill<__nv_bfloat16, 128, 1>(const PrefillMaps&, const PrefillArguments&,
                                                    CUstream_st*);
template void launch_prefill<__nv_bfloat16, 128, 2>(const PrefillMaps&, const PrefillArguments&,
                                                    CUstream_st*);

}  // namespace seer::cuda
