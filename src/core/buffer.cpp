#include "core/buffer.h"

#include <sys/mman.h>

namespace seer::detail {

void* allocate_aligned(std::size_t bytes) {
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  const std::size_t alignment = bytes >= kHuge ? kHuge : 64;
  const std::size_t rounded = (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0);
  void* pointer = nullptr;
  if (posix_memalign(&pointer, alignment, rounded) != 0) throw std::bad_alloc();
  if (bytes >= kHuge) madvise(pointer, rounded, MADV_HUGEPAGE);  // A hint: failing it changes nothing.
  return pointer;
}

}  // namespace seer::detail
