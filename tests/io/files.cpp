#include "io/files.h"

#include <unistd.h>

#include <atomic>
#include <fstream>

#include "core/check.h"

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

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
    return message;
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

::testing::AssertionResult error_names(const std::function<void()>& body,
                                       std::initializer_list<std::string_view> parts) {
  const std::string message = error_of(body);
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << "'" << part << "' is not in: " << message;
  return ::testing::AssertionSuccess();
}

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace seer::test
