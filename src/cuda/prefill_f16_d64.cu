#include "cuda/prefill.cuh"

namespace seer::cuda {

template void launch_prefill<__half, 64, 1>(const PrefillMaps&, const PrefillArguments&, CUstream_st*);
template void launch_prefill<__half, 64, 2>(const PrefillMaps&, const PrefillArguments&, CUstream_st*);

}  // namespace seer::cuda
