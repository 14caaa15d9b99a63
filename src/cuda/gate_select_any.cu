#include "cuda/gate_select.cuh"

namespace seer::cuda {

template void launch_gate_select<0>(const GateSelectParams&, CUstream_st*);

}  // namespace seer::cuda
