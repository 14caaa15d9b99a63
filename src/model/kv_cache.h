// The paged KV cache: pages of 64 tokens, shared by all sequences of a model; and the CPU's pool of pages.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "model/config.h"
#include "ops/attention.h"

namespace seer {

/// Owner of pages, numbered from 0.
class PagePool {
 public:
  virtual ~PagePool() = default;
  virtual std::int32_t allocate() = 0;  ///< a page whose slots hold finite values
  virtual void release(std::int32_t page) = 0;
};

class DecodeSelector;
class Sequence;

/// Pages in host memory. A page holds 64 tokens of ALL layers; layers lie one after another inside it. Pages
/// are allocated in slabs as they are needed and reused after release.
class KvPool final : public PagePool {
 public:
  /// dtype kF32 or kBF16.
  KvPool(const ModelConfig& config, DType dtype);

  std::int32_t allocate() override;
  void release(std::int32_t page) override;
  DType dtype() const { return dtype_; }
  std::int64_t page_bytes() const { return page_bytes_; }
  std::int64_t bytes_reserved() const { return static_cast<std::int64_t>(num_pages_) * page_bytes_; }

  /// One layer's view of a sequence of this pool.
  PagedKv view(int layer, const Sequence& sequence) const;

 private:
  ModelConfig config_;
  DType dtype_;
  std::int64_t layer_bytes_ = 0;
  std::int64_t page_bytes_ = 0;
  std::byte* base_ = nullptr;  // one address range reserved up front; pages are touched as they are used
  std::int64_t capacity_pages_ = 0;
  std::int32_t num_pages_ = 0;
  std::vector<std::int32_t> free_;
  std::shared_ptr<void> mapping_;
};

/// One sequence's tokens in a pool; releases its pages when destroyed. Move-only.
class Sequence {
 public:
  explicit Sequence(std::shared_ptr<PagePool> pool);
  ~Sequence();
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&&) = delete;
  Sequence(const Sequence&) = delete;

  std::int64_t length() const { return length_; }
  void extend(std::int64_t tokens);    ///< makes room; length grows by `tokens`
  void truncate(std::int64_t length);  ///< drops tokens from the end
  void clear() { truncate(0); }
  const std::vector<std::int32_t>& pages() const { return pages_; }

  /// Decodes this sequence, empty as yet, with the blocks that the selector chooses; without one: dense.
  void set_decode_selector(std::unique_ptr<DecodeSelector> selector);
  DecodeSelector* decode_selector() const { return decode_selector_.get(); }

 private:
  std::shared_ptr<PagePool> pool_;
  std::vector<std::int32_t> pages_;
  std::int64_t length_ = 0;
  std::unique_ptr<DecodeSelector> decode_selector_;
};

}  // namespace seer
