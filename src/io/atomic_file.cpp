#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/check.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

[[noreturn]] void fail_to_write(const std::string& path) {
  fail("{}: cannot write: {}", path, std::generic_category().message(errno));
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter{0};
  std::error_code ignored;
  fs::path target = path_;
  if (fs::is_symlink(target, ignored)) {
    const fs::path followed = fs::weakly_canonical(target, ignored);
    if (!followed.empty()) target = followed;
  }
  SEER_CHECK(!fs::is_directory(target, ignored), "{}: cannot write: it is a folder", path_);
  if (fs::exists(target, ignored) && !fs::is_regular_file(target, ignored)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    path_ = target.string();
    temporary_ = fmt::format("{}.tmp-{}-{}", path_, ::getpid(), counter++);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) temporary_.clear();
  }
  if (descriptor_ < 0) fail_to_write(path_);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, bytes, std::min<std::size_t>(size, 1u << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_to_write(path_);
    }
    bytes += written;
    size -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  if (temporary_.empty()) {
    close_descriptor();
    return;
  }
  if (::fsync(descriptor_) != 0) fail_to_write(path_);
  close_descriptor();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_to_write(path_);
  temporary_.clear();
  // The rename itself lasts only when the folder is synced too; not every file system can.
  const fs::path folder = fs::path(path_).parent_path();
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor >= 0) {
    ::fsync(descriptor);
    ::close(descriptor);
  }
}

void AtomicFile::close_descriptor() {
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_to_write(path_);
}

void write_file_atomically(const std::string& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents.data(), contents.size());
  file.commit();
}

std::string read_file(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const auto reason = [] { return std::generic_category().message(errno); };
  SEER_CHECK(descriptor >= 0, "{}: cannot open: {}", path, reason());
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};

  struct stat status {};
  if (::fstat(descriptor, &status) != 0) status.st_size = 0;
  SEER_CHECK(!S_ISDIR(status.st_mode), "{}: expected a file, found a folder", path);
  std::string contents;
  std::size_t size = 0;
  for (;;) {  // a pipe's size is not known before
    if (size == contents.size())
      contents.resize(std::max<std::size_t>({size * 2, static_cast<std::size_t>(status.st_size) + 1, 4096}));
    const ssize_t count = ::read(descriptor, contents.data() + size, contents.size() - size);
    if (count < 0 && errno == EINTR) continue;
    SEER_CHECK(count >= 0, "{}: cannot read: {}", path, reason());
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  contents.resize(size);
  return contents;
}

}  // namespace seer
