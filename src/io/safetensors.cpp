// The safetensors format: u64 header size, JSON header, tensors' bytes without holes.
// https://github.com/huggingface/safetensors#format
#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/check.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"
#include "io/message.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the files are little-endian and are mapped");

constexpr std::uint64_t kLargestHeader = 100'000'000;  // the format's own limit
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kIndex = "model.safetensors.index.json";

constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64,
                             DType::kI32, DType::kI16, DType::kI8,  DType::kU8,   DType::kBool};

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype : kDTypes)
    if (name_of(dtype) == name) return dtype;
  return std::nullopt;
}

/// Parses an object and counts the keys at its first level, so that repeated ones can be refused.
Json parse_object(std::string_view text, const std::string& label) {
  check_json_depth(text, label);
  std::size_t keys = 0;
  const auto count_keys = [&](int depth, Json::parse_event_t event, Json&) {
    keys += event == Json::parse_event_t::key && depth == 1;
    return true;
  };
  Json json = Json::parse(text, count_keys, /*allow_exceptions=*/false);
  SEER_CHECK(json.is_object(), "{}: expected a JSON object, found {}", label,
             json.is_discarded() ? "invalid JSON" : json.type_name());
  SEER_CHECK(keys == json.size(), "{}: a name occurs twice in the JSON object", label);
  return json;
}

/// A non-negative integer of the header.
std::uint64_t read_unsigned(const Json& value, const std::string& where, const char* what) {
  SEER_CHECK(value.is_number_unsigned(), "{}: {}: expected a non-negative integer, found {}", where, what,
             value.is_number() ? value.dump() : value.type_name());
  return value.get<std::uint64_t>();
}

const Json& field(const Json& entry, const std::string& where, const char* name) {
  const auto found = entry.find(name);
  SEER_CHECK(found != entry.end(), "{}: field {} is missing", where, name);
  return *found;
}

/// One tensor of the header; `data` is everything after the header.
TensorView parse_tensor(const std::string& name, const Json& entry, std::span<const std::byte> data,
                        const std::string& label) {
  const std::string where = fmt::format("{}: tensor {}", label, in_quotes(name));
  SEER_CHECK(entry.is_object(), "{}: expected an object, found {}", where, entry.type_name());

  TensorView tensor;
  tensor.name = name;
  tensor.file = label;
  const Json& dtype = field(entry, where, "dtype");
  SEER_CHECK(dtype.is_string(), "{}: dtype: expected a string, found {}", where, dtype.type_name());
  const auto known = dtype_named(dtype.get_ref<const std::string&>());
  SEER_CHECK(known, "{}: dtype: expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL, found {}", where,
             in_quotes(dtype.get_ref<const std::string&>()));
  tensor.dtype = *known;

  const Json& shape = field(entry, where, "shape");
  SEER_CHECK(shape.is_array(), "{}: shape: expected an array, found {}", where, shape.type_name());
  std::uint64_t size = size_of(tensor.dtype);
  for (const Json& extent : shape) {
    const std::uint64_t length = read_unsigned(extent, where, "shape");
    SEER_CHECK(
        length <= static_cast<std::uint64_t>(INT64_MAX) && !__builtin_mul_overflow(size, length, &size),
        "{}: shape: the product of its {} sizes does not fit in 64 bits", where, shape.size());
    tensor.shape.push_back(static_cast<std::int64_t>(length));
  }

  const Json& offsets = field(entry, where, "data_offsets");
  SEER_CHECK(offsets.is_array() && offsets.size() == 2, "{}: data_offsets: expected two integers", where);
  const std::uint64_t begin = read_unsigned(offsets[0], where, "data_offsets");
  const std::uint64_t end = read_unsigned(offsets[1], where, "data_offsets");
  SEER_CHECK(begin <= end && end <= data.size(),
             "{}: data_offsets: expected a range in the file's {} bytes of data, found [{}, {}]", where,
             data.size(), begin, end);
  SEER_CHECK(end - begin == size, "{}: data_offsets: expected {} bytes for its dtype and shape, found {}",
             where, size, end - begin);
  tensor.bytes = data.subspan(begin, size);
  return tensor;
}

/// Refuses overlapping tensors, holes and bytes after the last one, as the format does.
void check_layout(const std::map<std::string, TensorView, std::less<>>& tensors,
                  std::span<const std::byte> data, const std::string& label) {
  std::vector<const TensorView*> by_offset;
  for (const auto& [name, tensor] : tensors) by_offset.push_back(&tensor);
  const auto range = [](const TensorView* t) { return std::pair(t->bytes.data(), t->bytes.size()); };
  std::sort(by_offset.begin(), by_offset.end(),
            [&](const TensorView* a, const TensorView* b) { return range(a) < range(b); });
  std::size_t end = 0;
  const auto offset = [&](const TensorView* t) {
    return static_cast<std::size_t>(t->bytes.data() - data.data());
  };
  for (const TensorView* tensor : by_offset) {
    SEER_CHECK(offset(tensor) >= end, "{}: tensor {}: data_offsets: its bytes from {} overlap another tensor",
               label, in_quotes(tensor->name), offset(tensor));
    SEER_CHECK(offset(tensor) == end,
               "{}: tensor {}: data_offsets: expected {}, where the data before ends, "
               "found {}",
               label, in_quotes(tensor->name), end, offset(tensor));
    end += tensor->bytes.size();
  }
  SEER_CHECK(end == data.size(), "{}: expected {} bytes of data as its header says, found {}", label, end,
             data.size());
}

/// Old files may have headers of any length; elements must still be aligned in memory.
void align(TensorView& tensor) {
  if (reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % size_of(tensor.dtype) == 0) return;
  auto copy = std::make_shared<std::vector<std::byte>>(tensor.bytes.begin(), tensor.bytes.end());
  tensor.bytes = *copy;
  tensor.owner = std::move(copy);
}

/// The file that a shard index gives for each tensor.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const Json index = parse_object(read_file(path), path);
  const auto found = index.find("weight_map");
  SEER_CHECK(found != index.end() && found->is_object() && !found->empty(),
             "{}: field weight_map: expected an object of tensor names and files", path);
  std::map<std::string, std::string> weight_map;
  for (const auto& [name, file] : found->items()) {
    SEER_CHECK(file.is_string(), "{}: weight_map: tensor {}: expected a file name, found {}", path,
               in_quotes(name), file.type_name());
    const std::string& shard = file.get_ref<const std::string&>();
    SEER_CHECK(!shard.empty() && shard != "." && shard != ".." &&
                   shard.find_first_of(std::string_view("/\0", 2)) == std::string::npos,
               "{}: weight_map: tensor {}: expected the name of a file in the same folder, found {}", path,
               in_quotes(name), in_quotes(shard));
    weight_map[name] = shard;
  }
  return weight_map;
}

}  // namespace

TensorStore TensorStore::parse_safetensors(std::span<const std::byte> bytes, const std::string& label,
                                           std::shared_ptr<const void> owner) {
  std::uint64_t header_size = 0;
  SEER_CHECK(bytes.size() >= sizeof header_size, "{}: expected a safetensors file, found only {} bytes",
             label, bytes.size());
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  SEER_CHECK(
      header_size <= kLargestHeader && header_size <= bytes.size() - sizeof header_size,
      "{}: header size: expected at most {} bytes, found {}; the file is cut off or no safetensors file",
      label, std::min<std::uint64_t>(kLargestHeader, bytes.size() - sizeof header_size), header_size);
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof header_size,
                                header_size);
  const std::span<const std::byte> data = bytes.subspan(sizeof header_size + header_size);
  const Json json = parse_object(header, label + ": header");

  TensorStore store;
  store.label_ = label;
  for (const auto& [name, entry] : json.items()) {
    if (name == kMetadata) {
      SEER_CHECK(entry.is_object(), "{}: {}: expected an object, found {}", label, kMetadata,
                 entry.type_name());
      for (const auto& [key, value] : entry.items()) {
        SEER_CHECK(value.is_string(), "{}: {}: {}: expected a string, found {}", label, kMetadata,
                   in_quotes(key), value.type_name());
        store.metadata_[key] = value.get<std::string>();
      }
    } else {
      store.tensors_[name] = parse_tensor(name, entry, data, label);
    }
  }
  check_layout(store.tensors_, data, label);
  for (auto& [name, tensor] : store.tensors_) {
    tensor.owner = owner;
    align(tensor);
  }
  return store;
}

TensorStore TensorStore::open_safetensors(const std::string& path) {
  auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  return parse_safetensors(bytes, path, std::move(file));
}

TensorStore TensorStore::open_model_folder(const std::string& folder) {
  const fs::path single = fs::path(folder) / "model.safetensors", index = fs::path(folder) / kIndex;
  SEER_CHECK(fs::is_directory(folder), "{}: expected a model folder, found {}", folder,
             fs::exists(folder) ? "a file" : "nothing");
  if (fs::exists(single)) return open_safetensors(single.string());
  SEER_CHECK(fs::exists(index), "{}: expected model.safetensors or {}, found neither", folder, kIndex);

  TensorStore store;
  store.label_ = folder;
  std::map<std::string, TensorStore> shards;
  for (const auto& [name, shard] : read_weight_map(index.string())) {
    auto opened = shards.find(shard);
    if (opened == shards.end())
      opened = shards.emplace(shard, open_safetensors((fs::path(folder) / shard).string())).first;
    store.tensors_[name] = opened->second.get(name);
  }
  return store;
}

void write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Wide elements first keeps every tensor aligned behind a header of a multiple of 8 bytes.
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    return size_of(a->dtype) > size_of(b->dtype);
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::set<std::string> names = {kMetadata};
  std::vector<std::size_t> sizes;
  std::size_t end = 0;
  for (const TensorToWrite* tensor : order) {
    SEER_CHECK(names.insert(tensor->name).second, "{}: tensor name {} is taken", path,
               in_quotes(tensor->name));
    std::size_t size = size_of(tensor->dtype);
    for (const std::int64_t extent : tensor->shape) size *= static_cast<std::size_t>(extent);
    header[tensor->name] = {
        {"dtype", name_of(tensor->dtype)}, {"shape", tensor->shape}, {"data_offsets", {end, end + size}}};
    sizes.push_back(size);
    end += size;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t header_size = text.size();

  AtomicFile file(path);
  file.write(&header_size, sizeof header_size);
  file.write(text.data(), text.size());
  for (std::size_t i = 0; i < order.size(); ++i) file.write(order[i]->data, sizes[i]);
  file.commit();
}

}  // namespace seer
