#include "cuda_model/device_pages.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "core/check.h"
#include "cuda/check.h"
#include "cuda_model/memory_plan.h"

namespace seer {
namespace {

/// Memory that the pool asks the device for at a time, at least.
constexpr std::int64_t kGrowBytes = std::int64_t{64} << 20;

/// A function of the driver, so that the program does not link its library.
template <class Function>
Function driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  cuda::check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result), name);
  SEER_CHECK(result == cudaDriverEntryPointSuccess, "KV cache: the driver has no {}", name);
  return reinterpret_cast<Function>(found);
}

struct Driver {
  decltype(&cuMemAddressReserve) reserve =
      driver_function<decltype(&cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemAddressFree) unreserve = driver_function<decltype(&cuMemAddressFree)>("cuMemAddressFree");
  decltype(&cuMemCreate) create = driver_function<decltype(&cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release = driver_function<decltype(&cuMemRelease)>("cuMemRelease");
  decltype(&cuMemMap) map = driver_function<decltype(&cuMemMap)>("cuMemMap");
  decltype(&cuMemUnmap) unmap = driver_function<decltype(&cuMemUnmap)>("cuMemUnmap");
  decltype(&cuMemSetAccess) set_access = driver_function<decltype(&cuMemSetAccess)>("cuMemSetAccess");
  decltype(&cuMemGetAllocationGranularity) granularity =
      driver_function<decltype(&cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
};

void check_driver(CUresult status, const char* what) {
  SEER_CHECK(status == CUDA_SUCCESS, "KV cache: {} failed with driver error {}", what,
             static_cast<int>(status));
}

}  // namespace

/// A reserved range of addresses, backed from its beginning.
struct DevicePages::Memory {
  Driver driver;
  CUmemAllocationProp properties{};
  CUdeviceptr base = 0;
  std::int64_t reserved = 0;
  std::int64_t backed = 0;
  std::int64_t granularity = 0;
  std::vector<std::pair<CUmemGenericAllocationHandle, std::int64_t>> slabs;

  Memory() {
    std::size_t free = 0, total = 0;
    cuda::check(cudaMemGetInfo(&free, &total), "KV cache");
    int device = 0;
    cuda::check(cudaGetDevice(&device), "KV cache");
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    std::size_t step = 0;
    check_driver(driver.granularity(&step, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED), "granularity");
    granularity = static_cast<std::int64_t>(step);
    reserved = rounded(static_cast<std::int64_t>(total));
    check_driver(driver.reserve(&base, static_cast<std::size_t>(reserved), 0, 0, 0), "reserving addresses");
  }
  ~Memory() {
    if (backed > 0) driver.unmap(base, static_cast<std::size_t>(backed));
    for (const auto& [handle, bytes] : slabs) driver.release(handle);
    driver.unreserve(base, static_cast<std::size_t>(reserved));
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::int64_t rounded(std::int64_t bytes) const {
    return (bytes + granularity - 1) / granularity * granularity;
  }

  /// Backs at least `bytes`; false when the device has no more memory.
  bool grow_to(std::int64_t bytes) {
    if (bytes <= backed) return true;
    const std::int64_t step = rounded(std::max(bytes - backed, kGrowBytes));
    if (backed + step > reserved) return false;
    CUmemGenericAllocationHandle handle{};
    if (driver.create(&handle, static_cast<std::size_t>(step), &properties, 0) != CUDA_SUCCESS) return false;
    slabs.emplace_back(handle, step);
    const CUdeviceptr place = base + static_cast<CUdeviceptr>(backed);
    check_driver(driver.map(place, static_cast<std::size_t>(step), 0, handle, 0), "mapping");
    CUmemAccessDesc access{};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    check_driver(driver.set_access(place, static_cast<std::size_t>(step), &access, 1), "granting access");
    backed += step;
    return true;
  }
};

DevicePages::DevicePages(const ModelConfig& config, DType dtype, cuda::Stream stream)
    : num_kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      layer_bytes_(2 * kBlockSize * config.kv_size() * static_cast<std::int64_t>(size_of(dtype))),
      page_bytes_(layer_bytes_ * config.num_layers),
      stream_(stream),
      memory_(std::make_unique<Memory>()) {}

DevicePages::~DevicePages() = default;

std::int32_t DevicePages::allocate() {
  std::int32_t page = num_pages_;
  if (!free_.empty()) {
    page = free_.back();
  } else {
    const std::int64_t held = num_pages_ * page_bytes_;
    if (!memory_->grow_to(held + page_bytes_)) {
      const DeviceMemory memory = device_memory();
      fail(
          "GPU memory: the KV cache of all sequences needs {:.2f} GiB more, {:.2f} of {:.2f} GiB are free; "
          "it "
          "holds {} tokens ({:.2f} GiB), use a smaller batch or shorter prompts",
          gibibytes(bytes_for(1)), gibibytes(memory.free_bytes), gibibytes(memory.total_bytes),
          num_pages_ * kBlockSize, gibibytes(held));
    }
  }
  // Kernels read the unused slots of a last page and mask them: they must be finite.
  cuda::check(cudaMemsetAsync(reinterpret_cast<std::byte*>(memory_->base) + page * page_bytes_, 0,
                              static_cast<std::size_t>(page_bytes_), static_cast<cudaStream_t>(stream_)),
              "KV cache");
  if (!free_.empty())
    free_.pop_back();
  else
    ++num_pages_;
  return page;
}

void DevicePages::release(std::int32_t page) { free_.push_back(page); }

std::int64_t DevicePages::bytes_for(std::int64_t pages) const {
  const std::int64_t fresh = std::max<std::int64_t>(0, pages - static_cast<std::int64_t>(free_.size()));
  const std::int64_t missing = (num_pages_ + fresh) * page_bytes_ - memory_->backed;
  const std::int64_t step = memory_->rounded(std::max(page_bytes_, kGrowBytes));
  return std::max<std::int64_t>(0, missing + step - 1) / step * step;
}

std::int64_t DevicePages::tokens_held() const {
  return (num_pages_ - static_cast<std::int64_t>(free_.size())) * kBlockSize;
}

std::byte* DevicePages::layer_base(int layer) const {
  return reinterpret_cast<std::byte*>(memory_->base) + layer * layer_bytes_;
}

cuda::KeysValues DevicePages::keys_values(int layer, const std::int32_t* page_table,
                                          std::int64_t stride) const {
  const cuda::PagedCache tiles = cache(layer, page_table, stride);
  return {.k = tiles.k,
          .v = tiles.v,
          .token_stride = tiles.token_stride,
          .head_stride = tiles.head_stride,
          .page_table = page_table,
          .page_table_stride = stride,
          .page_stride = tiles.page_stride,
          .num_pages = memory_->reserved / page_bytes_};
}

cuda::PagedCache DevicePages::cache(int layer, const std::int32_t* page_table, std::int64_t stride) const {
  const std::int64_t tile = kBlockSize * head_dim_;
  std::byte* base = layer_base(layer);
  return {.k = base,
          .v = base + 2 * tile,  // 2 bytes an element
          .token_stride = head_dim_,
          .head_stride = 2 * tile,
          .page_stride = page_bytes_ / 2,
          .page_table = page_table,
          .page_table_stride = stride};
}

}  // namespace seer
