// Input: the pickle of a torch archive whose storages 0 and 1 have 64 and 6 bytes.
#include "fuzz.h"
#include "io/tensor_file.h"
#include "io/zip_archive.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string archive;
  seer::ZipWriter zip(
      [&](const void* bytes, std::size_t count) { archive.append(static_cast<const char*>(bytes), count); });
  zip.add("x/data.pkl", seer::fuzz::as_text(data, size));
  zip.add("x/data/0", std::string(64, 'a'));
  zip.add("x/data/1", std::string(6, 'b'));
  zip.finish();
  seer::fuzz::expect_error_or_success([&] {
    const auto store = seer::TensorStore::parse_torch(std::as_bytes(std::span(archive)), "file", nullptr);
    for (const auto& [name, tensor] : store.tensors())
      if (tensor.dtype == seer::DType::kF32) tensor.to_floats();
  });
  return 0;
}
