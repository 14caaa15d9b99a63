#include "model/kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "core/check.h"
#include "model/decode_selector.h"

namespace seer {
namespace {

/// Address space for a pool. Reserved once so that views stay valid while the pool grows; pages that no token
/// ever reached cost no memory.
constexpr std::int64_t kReservedBytes = std::int64_t{1} << 40;

}  // namespace

KvPool::KvPool(const ModelConfig& config, DType dtype) : config_(config), dtype_(dtype) {
  SEER_CHECK(dtype == DType::kF32 || dtype == DType::kBF16,
             "KV cache: expected float32 or bfloat16, found {}", name_of(dtype));
  layer_bytes_ = PagedKv::page_bytes(dtype, config.num_kv_heads, config.head_dim);
  page_bytes_ = layer_bytes_ * config.num_layers;
  // Some systems limit address space (ulimit -v, sanitizers): halve until a reservation is granted.
  for (std::int64_t bytes = kReservedBytes; bytes >= page_bytes_; bytes /= 2) {
    void* address = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) continue;
    madvise(address, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
    mapping_ =
        std::shared_ptr<void>(address, [bytes](void* p) { munmap(p, static_cast<std::size_t>(bytes)); });
    base_ = static_cast<std::byte*>(address);
    capacity_pages_ = bytes / page_bytes_;
    return;
  }
  fail("KV cache: no address space for one page of {} bytes", page_bytes_);
}

std::int32_t KvPool::allocate() {
  if (!free_.empty()) {
    const std::int32_t page = free_.back();
    free_.pop_back();
    // Kernels read the unused slots of a last page and mask them: they must be finite.
    std::memset(base_ + page * page_bytes_, 0, static_cast<std::size_t>(page_bytes_));
    return page;
  }
  SEER_CHECK(num_pages_ < capacity_pages_, "KV cache: all {} pages are in use", num_pages_);
  return num_pages_++;
}

void KvPool::release(std::int32_t page) { free_.push_back(page); }

PagedKv KvPool::view(int layer, const Sequence& sequence) const {
  return {.dtype = dtype_,
          .pool = base_ + layer * layer_bytes_,
          .page_stride = page_bytes_,
          .page_table = sequence.pages().data(),
          .num_kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .length = sequence.length()};
}

Sequence::Sequence(std::shared_ptr<PagePool> pool) : pool_(std::move(pool)) {}

Sequence::~Sequence() { clear(); }

Sequence::Sequence(Sequence&& other) noexcept
    : pool_(std::move(other.pool_)),
      pages_(std::exchange(other.pages_, {})),
      length_(std::exchange(other.length_, 0)),
      decode_selector_(std::move(other.decode_selector_)) {}

void Sequence::set_decode_selector(std::unique_ptr<DecodeSelector> selector) {
  SEER_CHECK(length_ == 0, "decode gate: expected an empty sequence, found one of {} tokens", length_);
  decode_selector_ = std::move(selector);
}

void Sequence::extend(std::int64_t tokens) {
  while (static_cast<std::int64_t>(pages_.size()) < blocks_for(length_ + tokens))
    pages_.push_back(pool_->allocate());
  length_ += tokens;
}

void Sequence::truncate(std::int64_t length) {
  while (static_cast<std::int64_t>(pages_.size()) > blocks_for(length)) {
    pool_->release(pages_.back());
    pages_.pop_back();
  }
  length_ = length;
}

}  // namespace seer
