// Input: a whole file, or, when it starts with '{', the header of a file with 64 bytes of data.
#include <cstring>

#include "fuzz.h"
#include "io/tensor_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string file;
  if (size > 0 && data[0] == '{') {
    const std::uint64_t header = size;
    file.append(reinterpret_cast<const char*>(&header), sizeof header);
    file += seer::fuzz::as_text(data, size);
    file.append(64, 'x');
  } else {
    file = seer::fuzz::as_text(data, size);
  }
  seer::fuzz::expect_error_or_success([&] {
    const auto bytes = std::as_bytes(std::span(file));
    const auto store = seer::TensorStore::parse_safetensors(bytes, "file", nullptr);
    std::size_t sum = 0;
    for (const auto& [name, tensor] : store.tensors()) {
      for (const std::byte b : tensor.bytes) sum += std::to_integer<std::size_t>(b);
      if (tensor.dtype == seer::DType::kF32) sum += tensor.to_floats().size();
    }
    static volatile std::size_t sink;
    sink = sum;
  });
  return 0;
}
