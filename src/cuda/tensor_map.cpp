#include "cuda/tensor_map.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "core/check.h"
#include "cuda/device_array.h"

namespace seer::cuda {
namespace {

/// The driver's tensor map encoder, so that the program does not link the driver's library.
decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
  static std::once_flag once;
  static decltype(&cuTensorMapEncodeTiled) encoder = nullptr;
  std::call_once(once, [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                           &found),
          "tensor maps");
    SEER_CHECK(found == cudaDriverEntryPointSuccess, "tensor maps: the driver has no cuTensorMapEncodeTiled");
    encoder = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  });
  return encoder;
}

}  // namespace

CUtensorMap panel_map(const char* name, DType dtype, const void* base, int head_dim, std::int64_t tokens,
                      std::int64_t token_stride, std::int64_t heads, std::int64_t head_stride,
                      std::int64_t pages, std::int64_t page_stride) {
  CUtensorMap map{};
  // An empty tensor is never read, but the encoder refuses it.
  const std::array<cuuint64_t, 5> sizes = {
      64, static_cast<cuuint64_t>(std::max<std::int64_t>(tokens, 1)), static_cast<cuuint64_t>(head_dim / 64),
      static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(std::max<std::int64_t>(pages, 1))};
  const std::array<cuuint64_t, 4> strides = {
      static_cast<cuuint64_t>(token_stride * 2), 128, static_cast<cuuint64_t>(head_stride * 2),
      static_cast<cuuint64_t>(std::max<std::int64_t>(page_stride, 8) * 2)};
  const std::array<cuuint32_t, 5> box = {64, 64, static_cast<cuuint32_t>(head_dim / 64), 1, 1};
  const std::array<cuuint32_t, 5> steps = {1, 1, 1, 1, 1};
  const CUresult status = tensor_map_encoder()(
      &map, dtype == DType::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 5,
      const_cast<void*>(base), sizes.data(), strides.data(), box.data(), steps.data(),
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  SEER_CHECK(status == CUDA_SUCCESS,
             "no tensor map for {} (tokens {}, token stride {}, head stride {}, pages {}, page "
             "stride {}): "
             "driver error {}",
             name, tokens, token_stride, head_stride, pages, page_stride, static_cast<int>(status));
  return map;
}

void check_aligned(const char* name, const void* pointer, std::int64_t token_stride,
                   std::int64_t head_stride) {
  SEER_CHECK(pointer != nullptr && reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0,
             "attention: {} must be a 16-byte aligned device pointer, got {}", name, pointer);
  SEER_CHECK(token_stride % 8 == 0 && head_stride % 8 == 0 && token_stride > 0 && head_stride > 0,
             "attention: strides of {} must be positive multiples of 8 elements, got token {} and head {}",
             name, token_stride, head_stride);
}

}  // namespace seer::cuda
