#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/check.h"

namespace seer {

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const auto reason = [] { return std::generic_category().message(errno); };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  SEER_CHECK(descriptor >= 0, "{}: cannot open: {}", path, reason());
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};

  struct stat status {};
  SEER_CHECK(::fstat(descriptor, &status) == 0, "{}: cannot read its size: {}", path, reason());
  SEER_CHECK(S_ISREG(status.st_mode), "{}: expected a regular file, found {}", path,
             S_ISDIR(status.st_mode) ? "a folder" : "something else");

  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  if (status.st_size == 0) return file;  // mmap refuses a length of 0
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  SEER_CHECK(data != MAP_FAILED, "{}: cannot map {} bytes: {}", path, size, reason());
  file->data_ = static_cast<const std::byte*>(data);
  file->size_ = size;
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace seer
