#include "io/files.h"

#include <fmt/core.h>
#include <unistd.h>

#include <atomic>
#include <fstream>

namespace fs = std::filesystem;

namespace seer::test {

TemporaryFolder::TemporaryFolder() {
  static std::atomic<int> counter{0};
  folder_ = fs::temp_directory_path() / fmt::format("seer-io-test-{}-{}", ::getpid(), counter++);
  fs::create_directories(folder_);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, std::string_view contents) const {
  const fs::path path = folder_ / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(contents.data(), static_cast<std::streamsize>(contents.size()));
  return path.string();
}

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace seer::test
