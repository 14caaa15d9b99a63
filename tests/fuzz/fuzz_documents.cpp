// Input: a jsonl file, and the same bytes as a text file.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fuzz.h"
#include "io/documents.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const char* extension : {"jsonl", "txt"}) {
    const std::string path = fmt::format(
        "{}/seer-fuzz-{}.{}", std::filesystem::temp_directory_path().string(), ::getpid(), extension);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    seer::fuzz::expect_error_or_success([&] { seer::read_documents(path); });
    std::filesystem::remove(path);
  }
  return 0;
}
