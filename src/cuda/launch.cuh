// Launches that may begin while the kernel before them on the stream ends: a small kernel's launch, its first
// instructions and what it reads of constant data then cost no time of their own.
#pragma once

#include <cuda_runtime.h>

#include "cuda/device_array.h"

namespace seer::cuda {

/// To be called before a kernel that was launched by launch_early reads or writes anything that earlier
/// kernels of the stream touch: returns once they are done. Every such kernel calls it.
__device__ __forceinline__ void wait_for_earlier_kernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// Lets the next kernel begin where CTAs of this one leave room.
__device__ __forceinline__ void let_next_kernel_begin() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

template <class... Parameters, class... Arguments>
void launch_early(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes,
                  cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

}  // namespace seer::cuda
