// Launching kernels that overlap the end of the one before them.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/check.h"

namespace seer::cuda {

/// Of clusters along x.
inline cudaLaunchAttribute cluster_attribute(unsigned ctas) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = ctas;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  return attribute;
}

/// How many clusters of `cluster` CTAs, without dynamic shared memory, run on the current device at a time.
template <class... Parameters>
int resident_clusters(const char* name, void (*kernel)(Parameters...), unsigned cluster, int threads) {
  cudaLaunchAttribute attribute = cluster_attribute(cluster);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(cluster);
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), name);
  return clusters;
}

/// Launches a kernel that may start while the one before it in the stream still runs (programmatic dependent
/// launch): each of its CTAs calls ptx::wait_for_previous_kernel() before it touches what others write.
/// `cluster` CTAs along x, which divide the grid, form a cluster; 0: the kernel knows no clusters.
template <class... Parameters>
void launch_clusters_early(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned cluster,
                           int threads, int shared_bytes, cudaStream_t stream,
                           const std::type_identity_t<Parameters>&... arguments) {
  if (shared_bytes > 0)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), name);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1] = cluster_attribute(cluster);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 0 ? 2 : 1;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

/// The same without clusters.
template <class... Parameters>
void launch_early(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes,
                  cudaStream_t stream, const std::type_identity_t<Parameters>&... arguments) {
  launch_clusters_early(name, kernel, grid, 0, threads, shared_bytes, stream, arguments...);
}

}  // namespace seer::cuda
