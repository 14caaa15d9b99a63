// Checks that .cu files can use: nvcc does not compile fmt's format strings. Only in builds with CUDA.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace seer::cuda {

/// Throws Error that names `what` if `status` is not success.
void check(cudaError_t status, const char* what);

/// Device memory. Throws Error with wanted and free bytes when there is none left.
void* allocate(std::int64_t bytes);

/// Throws Error "<expectation>, found <found>" if `ok` is false.
void require(bool ok, const char* expectation, std::int64_t found);

}  // namespace seer::cuda
