// Temporary folders, for tests of files.
#pragma once

#include <cstddef>
#include <filesystem>
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

std::span<const std::byte> as_bytes(std::string_view text);

}  // namespace seer::test
