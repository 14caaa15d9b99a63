#include "cuda/prefill.cuh"

namespace seer::cuda {

template void launch_prefill<__nv_bfloat16, 64, kSharedTiles, true>(const PrefillMaps&,
                                                                    const PrefillArguments&, CUstream_st*);

}  // namespace seer::cuda
