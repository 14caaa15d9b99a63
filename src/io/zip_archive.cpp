// Record layouts: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.
#include "io/zip_archive.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>

#include "core/check.h"
#include "io/message.h"

namespace seer {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50,
                        kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the value stands in the zip64 record
constexpr std::uint16_t kPaddingField = 0x4246, kZip64Field = 0x0001;
constexpr std::size_t kAlignment = 64;

/// Little-endian numbers of an archive; every read is checked.
class Bytes {
 public:
  Bytes(std::span<const std::byte> bytes, const std::string& label) : bytes_(bytes), label_(label) {}

  template <class T>
  T read(std::uint64_t offset) const {
    T value;
    std::memcpy(&value, range(offset, sizeof value).data(), sizeof value);
    return value;
  }
  std::span<const std::byte> range(std::uint64_t offset, std::uint64_t size) const {
    SEER_CHECK(offset <= bytes_.size() && size <= bytes_.size() - offset,
               "{}: damaged zip archive: expected {} bytes at {}, found its end at {}", label_, size, offset,
               bytes_.size());
    return bytes_.subspan(offset, size);
  }
  std::uint64_t size() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  const std::string& label_;
};

/// The directory of an archive.
struct Directory {
  std::uint64_t entries, size, offset;
};

Directory find_directory(const Bytes& bytes, const std::string& label) {
  std::optional<std::uint64_t> end;
  for (std::uint64_t back = kEndSize; back <= bytes.size() && back <= kEndSize + 0xffff && !end; ++back) {
    const std::uint64_t at = bytes.size() - back;
    if (bytes.read<std::uint32_t>(at) == kEnd && bytes.read<std::uint16_t>(at + 20) == back - kEndSize)
      end = at;
  }
  SEER_CHECK(end, "{}: expected a zip archive (torch.save() since 1.6), found no zip directory", label);
  if (*end >= kLocatorSize && bytes.read<std::uint32_t>(*end - kLocatorSize) == kEnd64Locator) {
    const auto at = bytes.read<std::uint64_t>(*end - kLocatorSize + 8);
    bytes.range(at, kEnd64Size);
    SEER_CHECK(bytes.read<std::uint32_t>(at) == kEnd64, "{}: damaged zip64 directory", label);
    return {bytes.read<std::uint64_t>(at + 32), bytes.read<std::uint64_t>(at + 40),
            bytes.read<std::uint64_t>(at + 48)};
  }
  return {bytes.read<std::uint16_t>(*end + 10), bytes.read<std::uint32_t>(*end + 12),
          bytes.read<std::uint32_t>(*end + 16)};
}

/// Replaces the values that a zip64 field holds, in its order.
void read_zip64(const Bytes& extra, std::initializer_list<std::uint64_t*> values) {
  for (std::uint64_t at = 0; at + 4 <= extra.size();) {
    const auto id = extra.read<std::uint16_t>(at), size = extra.read<std::uint16_t>(at + 2);
    at += 4;
    if (id == kZip64Field) {
      for (std::uint64_t* value : values) {
        if (*value != kIn64) continue;
        *value = extra.read<std::uint64_t>(at);
        at += 8;
      }
      return;
    }
    at += size;
  }
}

template <class T>
void put(std::string& text, T value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

using CrcTables = std::array<std::array<std::uint32_t, 256>, 8>;

/// Table k is for a byte that is followed by k others.
constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
    tables[0][i] = crc;
  }
  for (std::size_t k = 1; k < tables.size(); ++k)
    for (std::size_t i = 0; i < 256; ++i)
      tables[k][i] = (tables[k - 1][i] >> 8) ^ tables[0][tables[k - 1][i] & 0xff];
  return tables;
}

}  // namespace

std::map<std::string, ZipEntry, std::less<>> read_zip(std::span<const std::byte> archive,
                                                      const std::string& label) {
  const Bytes bytes(archive, label);
  const Directory directory = find_directory(bytes, label);
  const Bytes records(bytes.range(directory.offset, directory.size), label);

  std::map<std::string, ZipEntry, std::less<>> entries;
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    records.range(at, kCentralSize);
    SEER_CHECK(records.read<std::uint32_t>(at) == kCentralHeader, "{}: damaged zip directory at entry {}",
               label, i);
    const auto flags = records.read<std::uint16_t>(at + 8), method = records.read<std::uint16_t>(at + 10);
    const auto crc = records.read<std::uint32_t>(at + 16);
    std::uint64_t compressed = records.read<std::uint32_t>(at + 20),
                  size = records.read<std::uint32_t>(at + 24);
    const auto name_size = records.read<std::uint16_t>(at + 28),
               extra_size = records.read<std::uint16_t>(at + 30);
    const auto comment_size = records.read<std::uint16_t>(at + 32);
    std::uint64_t offset = records.read<std::uint32_t>(at + 42);
    const auto name_bytes = records.range(at + kCentralSize, name_size);
    const std::string name(reinterpret_cast<const char*>(name_bytes.data()), name_bytes.size());
    read_zip64(Bytes(records.range(at + kCentralSize + name_size, extra_size), label),
               {&size, &compressed, &offset});
    at += kCentralSize + name_size + extra_size + comment_size;

    SEER_CHECK((flags & 1) == 0 && method == 0 && compressed == size,
               "{}: zip entry {}: expected stored data, found it compressed or encrypted", label,
               in_quotes(name));
    bytes.range(offset, kLocalSize);
    SEER_CHECK(bytes.read<std::uint32_t>(offset) == kLocalHeader, "{}: zip entry {}: damaged header", label,
               in_quotes(name));
    const std::uint64_t data =
        offset + kLocalSize + bytes.read<std::uint16_t>(offset + 26) + bytes.read<std::uint16_t>(offset + 28);
    SEER_CHECK(entries.emplace(name, ZipEntry{bytes.range(data, size), crc}).second,
               "{}: zip entry {} occurs twice", label, in_quotes(name));
  }
  return entries;
}

std::uint32_t crc32(std::span<const std::byte> data) {
  static constexpr CrcTables kTables = make_crc_tables();
  std::uint32_t crc = ~0u;
  std::size_t i = 0;
  for (; i + 8 <= data.size(); i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, data.data() + i, sizeof eight);
    eight ^= crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][eight >> (8 * k) & 0xff];
  }
  for (; i < data.size(); ++i)
    crc = (crc >> 8) ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(data[i])) & 0xff];
  return ~crc;
}

void ZipWriter::write(std::string_view bytes) {
  sink_(bytes.data(), bytes.size());
  written_ += bytes.size();
}

void ZipWriter::add(std::string_view name, std::span<const std::byte> data) {
  const std::uint64_t offset = written_;
  const std::size_t unpadded = offset + kLocalSize + name.size() + 4;
  const auto padding = static_cast<std::uint16_t>((kAlignment - unpadded % kAlignment) % kAlignment);
  const std::uint32_t crc = crc32(data);

  std::string common;                      // what the local header and the directory share
  put(common, std::uint16_t{0});           // version needed
  put(common, std::uint16_t{1 << 11});     // names are UTF-8
  put(common, std::uint16_t{0});           // stored
  put(common, std::uint32_t{0x00210000});  // 1980-01-01, so that equal tensors give equal files
  put(common, crc);
  put(common, static_cast<std::uint32_t>(data.size()));
  put(common, static_cast<std::uint32_t>(data.size()));
  put(common, static_cast<std::uint16_t>(name.size()));

  std::string header;
  put(header, kLocalHeader);
  header += common;
  put(header, static_cast<std::uint16_t>(4 + padding));
  header += name;
  put(header, kPaddingField);
  put(header, padding);
  header.append(padding, '\0');
  write(header);
  write({reinterpret_cast<const char*>(data.data()), data.size()});

  put(directory_, kCentralHeader);
  put(directory_, std::uint16_t{0});  // version made by
  directory_ += common;
  put(directory_, std::uint16_t{0});  // extra fields
  put(directory_, std::uint16_t{0});  // comment
  put(directory_, std::uint16_t{0});  // disk
  put(directory_, std::uint16_t{0});  // internal attributes
  put(directory_, std::uint32_t{0});  // external attributes
  put(directory_, static_cast<std::uint32_t>(offset));
  directory_ += name;
  ++entries_;
  SEER_CHECK(written_ < kIn64 && entries_ < 0xffff,
             "a zip archive holds less than 4 GiB and 65535 entries; write safetensors instead");
}

void ZipWriter::finish() {
  std::string end;
  put(end, kEnd);
  put(end, std::uint32_t{0});  // disks
  put(end, static_cast<std::uint16_t>(entries_));
  put(end, static_cast<std::uint16_t>(entries_));
  put(end, static_cast<std::uint32_t>(directory_.size()));
  put(end, static_cast<std::uint32_t>(written_));
  put(end, std::uint16_t{0});  // comment
  SEER_CHECK(written_ + directory_.size() < kIn64,
             "a zip archive holds less than 4 GiB; write safetensors instead");
  write(directory_);
  write(end);
}

}  // namespace seer
