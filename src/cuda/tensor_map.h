// Tensor maps of attention's operands for the copy engine. Only in builds with CUDA.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/dtype.h"

namespace seer::cuda {

/// Map of a tensor [page][head][token][dim] of BF16 or F16 as panels of 64 columns: coordinates (0, token,
/// panel, head, page), box 64 tokens x all panels of one head, swizzled by 128 bytes; elements outside read
/// as zero. Strides in elements. Throws Error naming `name` and the sizes when the driver refuses them.
CUtensorMap panel_map(const char* name, DType dtype, const void* base, int head_dim, std::int64_t tokens,
                      std::int64_t token_stride, std::int64_t heads, std::int64_t head_stride,
                      std::int64_t pages, std::int64_t page_stride);

/// Throws Error naming `name` unless the pointer and the strides (in elements) fit the copy engine.
void check_aligned(const char* name, const void* pointer, std::int64_t token_stride,
                   std::int64_t head_stride);

}  // namespace seer::cuda
