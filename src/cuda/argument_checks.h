// Checks of arguments that the functions share. Internal to src/cuda.
#pragma once

#include <cstdint>

#include "core/check.h"
#include "core/dtype.h"
#include "cuda/gate.h"
#include "ops/select_params.h"

namespace seer::cuda {

inline void check_pointer(const char* name, const char* what, const void* pointer) {
  SEER_CHECK(pointer != nullptr && reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0,
             "{}: {} must be a 16-byte aligned device pointer, got {}", name, what, pointer);
}

inline void check_dtype(const char* name, DType dtype) {
  SEER_CHECK(dtype == DType::kBF16 || dtype == DType::kF16, "{}: dtype BF16 or F16, got {}", name,
             name_of(dtype));
}

inline void check_head_dim(const char* name, int head_dim) {
  SEER_CHECK(head_dim == 64 || head_dim == 128, "{}: head_dim 64 or 128, got {}", name, head_dim);
}

inline void check_hidden_size(const char* name, int dim) {
  SEER_CHECK(dim > 0 && dim <= 256 && dim % 16 == 0,
             "{}: the hidden size must be a multiple of 16 up to 256, got {}", name, dim);
}

inline void check_rule(const char* name, const SelectParams& select) {
  SEER_CHECK(select.rule != SelectRule::kDense, "{}: a dense mask needs no selection", name);
  SEER_CHECK(select.total_blocks > 0 || (select.rule != SelectRule::kNzRatio && !select.last_block_dense),
             "{}: total_blocks must be positive, got {}", name, select.total_blocks);
}

inline void check_mask(const char* name, std::int64_t first_row, std::int64_t rows, const std::uint64_t* mask,
                       std::int64_t mask_words) {
  SEER_CHECK(first_row >= 0 && rows >= 0, "{}: first_row and rows must not be negative, got {} and {}", name,
             first_row, rows);
  SEER_CHECK(mask != nullptr && mask_words * 64 >= first_row + rows && mask_words < (1 << 20),
             "{}: the mask must be given and its words cover {} blocks, got {} words", name, first_row + rows,
             mask_words);
}

inline void check_row_length(const char* name, std::int64_t blocks) {
  SEER_CHECK(blocks <= kMaxSelectBlocks, "{}: rows of up to {} blocks, got {}", name, kMaxSelectBlocks,
             blocks);
}

}  // namespace seer::cuda
