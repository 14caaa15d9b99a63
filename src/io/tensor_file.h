// Named tensors in files: safetensors (one file or shards), and torch's zip archives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace seer {

/// A tensor's bytes where they lie, row-major; valid as long as `owner` (a mapped file or buffer) is held.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::string file;  // for messages
  std::shared_ptr<const void> owner;

  std::int64_t num_elements() const;
  /// The elements; throws Error unless the dtype is T's. T: float, double, BFloat16, Float16, int32_t,
  /// int64_t, uint8_t.
  template <class T>
  std::span<const T> as() const;
  /// A float32 copy of an F32, F16 or BF16 tensor (F64 too: rounded).
  std::vector<float> to_floats() const;
};

/// Tensors of one or several files by name.
class TensorStore {
 public:
  /// One .safetensors file, checked: header size, JSON, dtypes, shapes, offsets in range, and, as the format
  /// demands, no overlaps, no holes and nothing behind the last tensor.
  static TensorStore open_safetensors(const std::string& path);
  /// A safetensors image already in memory; `label` names it in messages. For tests and fuzzing.
  static TensorStore parse_safetensors(std::span<const std::byte> bytes, const std::string& label,
                                       std::shared_ptr<const void> owner);
  /// A torch.save() zip archive (.pth, .pt, .bin) of a (possibly ordered, possibly nested under one key) dict
  /// of tensors. Runs no code: only the opcodes and globals that rebuild tensors are understood, all else is
  /// refused.
  static TensorStore open_torch(const std::string& path);
  static TensorStore parse_torch(std::span<const std::byte> bytes, const std::string& label,
                                 std::shared_ptr<const void> owner);
  /// A Hugging Face model folder: model.safetensors, or the shards of model.safetensors.index.json.
  static TensorStore open_model_folder(const std::string& folder);

  bool contains(std::string_view name) const;
  /// Throws Error naming the file(s) and the tensor when missing.
  const TensorView& get(std::string_view name) const;
  /// get() that also demands this shape; the message names both.
  const TensorView& get(std::string_view name, std::span<const std::int64_t> shape) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  /// The `__metadata__` strings of a safetensors file.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const std::string& label() const { return label_; }

 private:
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::string label_;
};

/// A tensor to be written.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
};

/// Writes safetensors atomically: to a temporary file beside, synced, then renamed. When the disk is full the
/// old file survives, the temporary one is removed and Error names the path and the reason.
void write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// Writes a zip archive that torch.load(weights_only=True) reads as an ordered dict of tensors. Atomic as
/// above.
void write_torch(const std::string& path, std::span<const TensorToWrite> tensors);

/// Writes a small text file atomically, as above.
void write_file_atomically(const std::string& path, std::string_view contents);

/// Whole text file. Throws Error naming the path.
std::string read_file(const std::string& path);

}  // namespace seer
