// Finished samples of an evaluation, kept so that an interrupted run goes on where it stopped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace seer {

/// An append-only file of JSON lines `{"key": ..., ...}`. Each line is written by one call, so a run killed
/// at any moment leaves at most its last line incomplete; such a line is dropped when the file is opened. A
/// key is stored once. While open the file is locked against other runs.
class SampleLog {
 public:
  /// Opens or creates. Throws Error naming the file and the line that is no such object, or when another run
  /// holds it.
  explicit SampleLog(const std::string& path);
  ~SampleLog();
  SampleLog(const SampleLog&) = delete;
  SampleLog& operator=(const SampleLog&) = delete;

  /// The JSON object stored under `key`, or nullptr.
  const std::string* find(const std::string& key) const;
  /// Stores `{"key":KEY,` + members + `}` if the key is new; `members` is JSON without braces. Throws Error
  /// when the disk is full; the file then ends where it did before.
  void append(const std::string& key, std::string_view members);

  const std::string& path() const { return path_; }
  std::size_t size() const { return lines_.size(); }

 private:
  std::string path_;
  int file_ = -1;
  std::int64_t length_ = 0;
  std::unordered_map<std::string, std::string> lines_;
};

/// A 64-bit hash of what an evaluation depends on. Not for adversaries.
class Fingerprint {
 public:
  Fingerprint& add(std::string_view bytes);
  Fingerprint& add(std::uint64_t value);
  Fingerprint& add(double value);
  /// Size and contents of a file; of one larger than 64 MB, its beginning and evenly spread pieces.
  Fingerprint& add_file(const std::string& path);
  /// All regular files of a folder (not below), in sorted order, names included.
  Fingerprint& add_folder(const std::string& path);

  std::uint64_t value() const { return state_; }
  std::string hex() const;  ///< 16 digits

 private:
  std::uint64_t state_ = 0x243f6a8885a308d3u;
};

}  // namespace seer
