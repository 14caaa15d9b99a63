// Zip archives whose entries are stored without compression, as torch.save() writes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace seer {

struct ZipEntry {
  std::span<const std::byte> data;
  std::uint32_t crc = 0;
};

/// The entries of an archive by name, zip64 included. Checks that all lie inside the archive; throws Error
/// naming `label` for a damaged archive and for compressed, encrypted or repeated entries.
std::map<std::string, ZipEntry, std::less<>> read_zip(std::span<const std::byte> archive,
                                                      const std::string& label);

/// CRC-32 of zip (ISO 3309).
std::uint32_t crc32(std::span<const std::byte> data);

/// Writes an archive of at most 4 GiB front to back. Entries' data is aligned to 64 bytes.
class ZipWriter {
 public:
  using Sink = std::function<void(const void* data, std::size_t size)>;
  explicit ZipWriter(Sink sink) : sink_(std::move(sink)) {}

  void add(std::string_view name, std::span<const std::byte> data);
  void add(std::string_view name, std::string_view text) { add(name, std::as_bytes(std::span(text))); }
  /// Writes the directory. Throws Error when the archive is too large.
  void finish();

 private:
  void write(std::string_view bytes);

  Sink sink_;
  std::uint64_t written_ = 0;
  std::string directory_;
  std::uint64_t entries_ = 0;
};

}  // namespace seer
