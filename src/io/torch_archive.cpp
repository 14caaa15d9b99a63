// torch.save() archives: a zip of NAME/data.pkl and one NAME/data/KEY for each storage.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"
#include "io/message.h"
#include "io/pickle.h"
#include "io/tensor_file.h"
#include "io/zip_archive.h"

namespace seer {
namespace {

/// Elements of a shape; throws Error when they do not fit in 63 bits.
std::int64_t count_elements(const std::vector<std::int64_t>& shape, const std::string& where) {
  std::int64_t count = 1;
  bool overflow = false;
  for (const std::int64_t size : shape) overflow |= __builtin_mul_overflow(count, size, &count);
  SEER_CHECK(!overflow, "{}: shape: the product of its sizes does not fit in 63 bits", where);
  return count;
}

std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

/// Sizes of 1 have no say.
bool is_contiguous(const PickledTensor& tensor) {
  const std::vector<std::int64_t> expected = contiguous_strides(tensor.shape);
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected[i]) return false;
  return true;
}

/// One past the last element that a non-empty tensor touches; throws Error when that does not fit in 63 bits.
std::int64_t end_in_storage(const PickledTensor& tensor, const std::string& where) {
  std::int64_t end = 0;
  bool overflow = __builtin_add_overflow(tensor.offset, std::int64_t{1}, &end);
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    std::int64_t reach = 0;
    overflow |= __builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach);
    overflow |= __builtin_add_overflow(end, reach, &end);
  }
  SEER_CHECK(!overflow, "{}: sizes and strides reach beyond 63 bits", where);
  return end;
}

/// The elements in row-major order.
std::shared_ptr<std::vector<std::byte>> gather(const PickledTensor& tensor, const std::byte* storage,
                                               std::int64_t count) {
  const std::size_t size = size_of(tensor.dtype);
  auto result = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(count) * size);
  std::vector<std::int64_t> index(tensor.shape.size());
  std::int64_t source = tensor.offset;
  for (std::int64_t i = 0; i < count; ++i) {
    std::memcpy(result->data() + static_cast<std::size_t>(i) * size,
                storage + static_cast<std::size_t>(source) * size, size);
    for (std::size_t d = index.size(); d-- > 0;) {
      source += tensor.strides[d];
      if (++index[d] < tensor.shape[d]) break;
      source -= tensor.shape[d] * tensor.strides[d];
      index[d] = 0;
    }
  }
  return result;
}

using Entries = std::map<std::string, ZipEntry, std::less<>>;

/// An entry whose checksum holds.
std::span<const std::byte> checked(const ZipEntry& entry, const std::string& name, const std::string& label) {
  SEER_CHECK(crc32(entry.data) == entry.crc,
             "{}: zip entry {}: its checksum does not fit: the file is damaged", label, in_quotes(name));
  return entry.data;
}

/// Everything before "data.pkl" in its entry's name.
std::string find_prefix(const Entries& entries, const std::string& label) {
  constexpr std::string_view kPickle = "data.pkl";
  for (const auto& [name, entry] : entries)
    if (name.ends_with("/data.pkl") && name.find('/') == name.size() - kPickle.size() - 1)
      return name.substr(0, name.size() - kPickle.size());
  fail("{}: expected a torch archive, found a zip without NAME/data.pkl", label);
}

class Loader {
 public:
  Loader(std::span<const std::byte> bytes, const std::string& label, std::shared_ptr<const void> owner)
      : entries_(read_zip(bytes, label)),
        label_(label),
        owner_(std::move(owner)),
        copies_left_(bytes.size()) {
    prefix_ = find_prefix(entries_, label);
    const std::string name = prefix_ + "byteorder";
    if (const auto order = entries_.find(name); order != entries_.end()) {
      const std::string_view text = as_text(checked(order->second, name, label));
      SEER_CHECK(text == "little", "{}: byteorder: expected 'little', found {}", label, in_quotes(text));
    }
  }

  std::vector<std::pair<std::string, PickledTensor>> pickled() const {
    const std::string name = prefix_ + "data.pkl";
    return read_pickled_tensors(as_text(checked(entries_.at(name), name, label_)), label_);
  }

  TensorView load(const std::string& name, const PickledTensor& pickled) {
    const std::string where = fmt::format("{}: tensor {}", label_, in_quotes(name));
    const std::size_t element = size_of(pickled.dtype);
    const std::span<const std::byte> storage = storage_bytes(pickled, where);
    const std::int64_t count = count_elements(pickled.shape, where);
    const auto available = static_cast<std::int64_t>(storage.size() / element);

    TensorView tensor;
    tensor.name = name;
    tensor.dtype = pickled.dtype;
    tensor.shape = pickled.shape;
    tensor.file = label_;
    tensor.owner = owner_;
    if (count == 0) return tensor;
    const std::int64_t end = end_in_storage(pickled, where);
    SEER_CHECK(end <= available, "{}: expected elements up to {} in its storage, found {}", where, end,
               available);
    SEER_CHECK(count <= available, "{}: its {} elements overlap in a storage of {}", where, count, available);
    const auto size = static_cast<std::size_t>(count) * element;
    const std::byte* first = storage.data() + static_cast<std::size_t>(pickled.offset) * element;
    if (is_contiguous(pickled) && reinterpret_cast<std::uintptr_t>(first) % element == 0) {
      tensor.bytes = {first, size};
      return tensor;
    }
    // Many strided views of one storage must not take more memory than the file is large.
    SEER_CHECK(size <= copies_left_, "{}: tensors that are not contiguous share storages too often", where);
    copies_left_ -= size;
    const auto copy = gather(pickled, storage.data(), count);
    tensor.bytes = *copy;
    tensor.owner = copy;
    return tensor;
  }

 private:
  static std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::span<const std::byte> storage_bytes(const PickledTensor& pickled, const std::string& where) {
    const std::string name = prefix_ + "data/" + pickled.storage_key;
    auto known = storages_.find(name);
    if (known == storages_.end()) {
      const auto entry = entries_.find(name);
      SEER_CHECK(entry != entries_.end(), "{}: zip entry {} is missing", where, in_quotes(name));
      known = storages_.emplace(name, checked(entry->second, name, label_)).first;
    }
    const std::size_t element = size_of(pickled.dtype);
    SEER_CHECK(static_cast<std::uint64_t>(pickled.storage_size) <= known->second.size() / element,
               "{}: expected a storage of {} elements of {} bytes, found {} bytes", where,
               pickled.storage_size, element, known->second.size());
    return known->second.first(static_cast<std::size_t>(pickled.storage_size) * element);
  }

  Entries entries_;
  const std::string& label_;
  std::shared_ptr<const void> owner_;
  std::size_t copies_left_;  // bytes
  std::string prefix_;
  std::map<std::string, std::span<const std::byte>> storages_;  // whose checksums hold
};

}  // namespace

TensorStore TensorStore::parse_torch(std::span<const std::byte> bytes, const std::string& label,
                                     std::shared_ptr<const void> owner) {
  TensorStore store;
  store.label_ = label;
  Loader loader(bytes, label, std::move(owner));
  for (const auto& [name, pickled] : loader.pickled()) store.tensors_[name] = loader.load(name, pickled);
  return store;
}

TensorStore TensorStore::open_torch(const std::string& path) {
  auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  return parse_torch(bytes, path, std::move(file));
}

void write_torch(const std::string& path, std::span<const TensorToWrite> tensors) {
  std::vector<std::pair<std::string, PickledTensor>> pickled;
  for (const TensorToWrite& tensor : tensors) {
    const std::int64_t count =
        count_elements(tensor.shape, fmt::format("{}: {}", path, in_quotes(tensor.name)));
    pickled.emplace_back(tensor.name, PickledTensor{std::to_string(pickled.size()), tensor.dtype, count, 0,
                                                    tensor.shape, contiguous_strides(tensor.shape)});
  }
  AtomicFile file(path);
  ZipWriter zip([&](const void* data, std::size_t size) { file.write(data, size); });
  zip.add("archive/data.pkl", pickle_tensors(pickled));
  zip.add("archive/byteorder", "little");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto size = static_cast<std::size_t>(pickled[i].second.storage_size) * size_of(tensors[i].dtype);
    zip.add(fmt::format("archive/data/{}", i), {static_cast<const std::byte*>(tensors[i].data), size});
  }
  zip.add("archive/version", "3\n");
  zip.finish();
  file.commit();
}

}  // namespace seer
