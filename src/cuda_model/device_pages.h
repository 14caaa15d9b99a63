// The paged KV cache in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/attention.h"
#include "cuda/rope_pool.h"
#include "model/config.h"
#include "model/kv_cache.h"

namespace seer {

/// Pages of 64 tokens of ALL layers. A range of addresses as large as the device's memory is reserved once
/// and backed with memory as pages are needed, so addresses stay valid while the pool grows. A page holds,
/// for each layer and KV head, a K tile [64, head_dim] and then a V tile.
class DevicePages final : public PagePool {
 public:
  /// `dtype` kBF16 or kF16. Pages are cleared on `stream`.
  DevicePages(const ModelConfig& config, DType dtype, cuda::Stream stream);
  ~DevicePages() override;
  DevicePages(const DevicePages&) = delete;
  DevicePages& operator=(const DevicePages&) = delete;

  /// Throws Error naming the sizes when the device's memory is full.
  std::int32_t allocate() override;
  void release(std::int32_t page) override;

  std::int64_t page_bytes() const { return page_bytes_; }
  /// What `pages` more pages take from the device's free memory.
  std::int64_t bytes_for(std::int64_t pages) const;
  /// Of all sequences, in whole pages.
  std::int64_t tokens_held() const;

  /// One layer, to read and to write; page_table [batch, stride] is device memory.
  cuda::KeysValues keys_values(int layer, const std::int32_t* page_table, std::int64_t stride) const;
  cuda::PagedCache cache(int layer, const std::int32_t* page_table, std::int64_t stride) const;

 private:
  struct Memory;
  std::byte* layer_base(int layer) const;

  int num_kv_heads_, head_dim_;
  std::int64_t layer_bytes_, page_bytes_;
  cuda::Stream stream_;
  std::unique_ptr<Memory> memory_;
  std::int32_t num_pages_ = 0;  // handed out so far
  std::vector<std::int32_t> free_;
};

}  // namespace seer
