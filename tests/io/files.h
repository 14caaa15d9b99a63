// Temporary folders and errors' messages, for tests of files.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace seer::test {

/// A new empty folder, removed with all it holds at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  const std::filesystem::path& folder() const { return folder_; }
  /// Writes a file, folders above it included; returns its path.
  std::string write(const std::string& name, std::string_view contents) const;

 private:
  std::filesystem::path folder_;
};

/// What Error says when `body` throws it; fails the test when it does not, or when that is not one line.
std::string error_of(const std::function<void()>& body);

/// Success when error_of(body) contains every part.
::testing::AssertionResult error_names(const std::function<void()>& body,
                                       std::initializer_list<std::string_view> parts);

std::span<const std::byte> as_bytes(std::string_view text);

}  // namespace seer::test
