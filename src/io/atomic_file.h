// Writing a file so that it is either the old one or the whole new one.
#pragma once

#include <cstddef>
#include <string>

namespace seer {

/// Collects a file's new contents in a temporary file beside it; commit() syncs and renames it into place.
/// Destroyed without commit(), the temporary file is removed and the old file stays as it was. A target that
/// exists and is no regular file (a pipe, a device) is written directly. Every failure throws Error naming
/// the path and the reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t size);
  void commit();

 private:
  void close_descriptor();

  std::string path_;
  std::string temporary_;  // empty: path_ is written directly
  int descriptor_ = -1;
};

}  // namespace seer
