#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device_fill.h"

namespace seer::cuda {
namespace {

template <class T>
__global__ void fill_kernel(T* values, std::int64_t count, std::uint64_t seed) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    std::uint64_t x = seed * 0x9e3779b97f4a7c15ull + static_cast<std::uint64_t>(i);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    const float u = (static_cast<float>(x >> 40) + 1) * 0x1p-24f;
    const float angle = static_cast<float>(x & 0xffffff) * 0x1p-23f;
    values[i] = static_cast<T>(sqrtf(-2 * logf(u)) * cospif(angle));
  }
}

__global__ void hash_kernel(const std::uint32_t* words, std::int64_t count, unsigned long long* sum) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  unsigned long long total = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    std::uint64_t x = (static_cast<std::uint64_t>(i) << 32 | words[i]) * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
    total += x ^ (x >> 32);
  }
  atomicAdd(sum, total);
}

}  // namespace

void hash_words(const std::uint32_t* words, std::int64_t count, std::uint64_t* sum) {
  hash_kernel<<<1024, 256>>>(words, count, reinterpret_cast<unsigned long long*>(sum));
}

void fill_normal(DType dtype, void* values, std::int64_t count, std::uint64_t seed) {
  if (dtype == DType::kBF16) {
    fill_kernel<<<1024, 256>>>(static_cast<__nv_bfloat16*>(values), count, seed);
  } else {
    fill_kernel<<<1024, 256>>>(static_cast<__half*>(values), count, seed);
  }
}

}  // namespace seer::cuda
