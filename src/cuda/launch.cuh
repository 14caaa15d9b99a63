// Launching kernels that overlap the end of the one before them.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/check.h"

namespace seer::cuda {

/// Launches a kernel that may start while the one before it in the stream still runs (programmatic dependent
/// launch): each of its CTAs calls ptx::wait_for_previous_kernel() before it touches what others write.
template <class... Parameters>
void launch_early(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes,
                  cudaStream_t stream, const std::type_identity_t<Parameters>&... arguments) {
  if (shared_bytes > 0)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), name);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

}  // namespace seer::cuda
