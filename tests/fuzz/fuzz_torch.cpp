// Input: a torch archive.
#include "fuzz.h"
#include "io/tensor_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  seer::fuzz::expect_error_or_success([&] {
    const auto store = seer::TensorStore::parse_torch(std::as_bytes(std::span(data, size)), "file", nullptr);
    for (const auto& [name, tensor] : store.tensors())
      if (tensor.dtype == seer::DType::kF32) tensor.to_floats();
  });
  return 0;
}
