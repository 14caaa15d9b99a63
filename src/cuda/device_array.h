// Owner of device memory, with copies as named calls. Only in builds with CUDA.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cuda/check.h"

namespace seer::cuda {

/// `size` elements of device memory, uninitialised. Move-only.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::int64_t size)
      : data_(static_cast<T*>(allocate(size * static_cast<std::int64_t>(sizeof(T))))), size_(size) {}
  explicit DeviceArray(std::span<const T> values) : DeviceArray(static_cast<std::int64_t>(values.size())) {
    upload(values);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    DeviceArray old(std::move(*this));
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  void upload(std::span<const T> values) {
    check(cudaMemcpy(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice),
          "copy to the device");
  }
  std::vector<T> download() const {
    std::vector<T> values(static_cast<std::size_t>(size_));
    check(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost), "copy from the device");
    return values;
  }
  /// Room for `size` elements; what was there is lost when it must grow.
  void reserve_discard(std::int64_t size) {
    if (size <= size_) return;
    *this = DeviceArray();
    *this = DeviceArray(size);
  }
  /// Sets every byte; 0xff makes every floating-point element NaN.
  void fill_bytes(int value) { check(cudaMemset(data_, value, bytes()), "device memset"); }

 private:
  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace seer::cuda
