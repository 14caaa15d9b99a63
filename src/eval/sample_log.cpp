#include "eval/sample_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/check.h"
#include "io/mapped_file.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

constexpr std::int64_t kWholeFileLimit = 64 << 20;
constexpr std::int64_t kPieces = 256;
constexpr std::int64_t kPieceBytes = 16 << 10;

std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

SampleLog::SampleLog(const std::string& path) : path_(path) {
  std::error_code ignored;
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty()) fs::create_directories(folder, ignored);
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  SEER_CHECK(file_ >= 0, "{}: cannot open for writing: {}", path, std::strerror(errno));
  try {
    SEER_CHECK(::flock(file_, LOCK_EX | LOCK_NB) == 0, "{}: another run is writing to it", path);
    const std::string text = read_file(path);
    std::size_t begin = 0;
    for (std::size_t number = 1;; ++number) {
      const std::size_t end = text.find('\n', begin);
      if (end == std::string::npos) break;
      const nlohmann::json line =
          nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                text.begin() + static_cast<std::ptrdiff_t>(end), nullptr,
                                /*allow_exceptions=*/false);
      SEER_CHECK(
          line.is_object() && line.contains("key") && line["key"].is_string(),
          "{}: line {}: expected a JSON object with a key, as a run of seer writes it; remove the line "
          "or the file",
          path, number);
      lines_.emplace(line["key"].get<std::string>(), text.substr(begin, end - begin));
      begin = end + 1;
    }
    length_ = static_cast<std::int64_t>(begin);
    SEER_CHECK(::ftruncate(file_, length_) == 0, "{}: cannot drop its incomplete last line: {}", path,
               std::strerror(errno));
  } catch (...) {
    ::close(file_);
    throw;
  }
}

SampleLog::~SampleLog() { ::close(file_); }

const std::string* SampleLog::find(const std::string& key) const {
  const auto found = lines_.find(key);
  return found == lines_.end() ? nullptr : &found->second;
}

void SampleLog::append(const std::string& key, std::string_view members) {
  const auto [place, is_new] =
      lines_.emplace(key, fmt::format("{{\"key\":{},{}}}", nlohmann::json(key).dump(), members));
  if (!is_new) return;
  const std::string line = place->second + "\n";
  for (std::size_t written = 0; written < line.size();) {
    const ssize_t step = ::pwrite(file_, line.data() + written, line.size() - written,
                                  length_ + static_cast<std::int64_t>(written));
    if (step < 0 && errno == EINTR) continue;
    if (step <= 0) {
      const std::string reason = std::strerror(errno);
      lines_.erase(place);
      [[maybe_unused]] const int best_effort = ::ftruncate(file_, length_);
      fail("{}: cannot write: {}", path_, reason);
    }
    written += static_cast<std::size_t>(step);
  }
  length_ += static_cast<std::int64_t>(line.size());
}

Fingerprint& Fingerprint::add(std::uint64_t value) {
  state_ = mix(std::rotl(state_, 27) * 0x9e3779b97f4a7c15u + mix(value + 0x9e3779b97f4a7c15u));
  return *this;
}

Fingerprint& Fingerprint::add(double value) { return add(std::bit_cast<std::uint64_t>(value)); }

Fingerprint& Fingerprint::add(std::string_view bytes) {
  add(std::uint64_t{bytes.size()});
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    add(word);
  }
  std::uint64_t tail = 0;
  if (i < bytes.size()) std::memcpy(&tail, bytes.data() + i, bytes.size() - i);
  return add(tail);
}

Fingerprint& Fingerprint::add_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  const auto size = static_cast<std::int64_t>(bytes.size());
  if (size <= kWholeFileLimit) return add(bytes);
  add(static_cast<std::uint64_t>(size)).add(bytes.substr(0, 1 << 20));
  for (std::int64_t i = 1; i <= kPieces; ++i)
    add(bytes.substr(static_cast<std::size_t>((size - kPieceBytes) / kPieces * i), kPieceBytes));
  return *this;
}

Fingerprint& Fingerprint::add_folder(const std::string& path) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    add(file.filename().string());
    if (fs::file_size(file) > 0) add_file(file.string());
  }
  return *this;
}

std::string Fingerprint::hex() const { return fmt::format("{:016x}", state_); }

}  // namespace seer
