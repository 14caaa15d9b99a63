// Byte-level BPE tokenizers from Hugging Face tokenizer.json.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace seer {

/// Encodes text to ids and back exactly as the `tokenizers` library does for byte-level BPE files: added and
/// special tokens, NFC normaliser, regex pre-tokenizers (Split with Llama-3 and Qwen patterns, ByteLevel),
/// ignore_merges, and template post-processors that add BOS/EOS. Thread-safe after construction.
class Tokenizer {
 public:
  /// Reads FOLDER/tokenizer.json and, where present, tokenizer_config.json (chat_template, bos/eos,
  /// clean_up_tokenization_spaces). Throws Error naming the file and the field.
  static Tokenizer load(const std::string& folder);
  /// From the JSON text itself; `label` names it in messages.
  static Tokenizer parse(std::string_view tokenizer_json, const std::string& label);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Throws Error when text is not valid UTF-8, with the byte position.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  /// Bytes that form no valid UTF-8 become U+FFFD. Ids outside the vocabulary throw Error.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = true) const;
  /// The raw bytes of one id (may be part of a character); a special token gives its text.
  const std::string& token_bytes(std::int32_t id) const;

  std::int64_t vocab_size() const;  ///< one past the largest id
  bool is_special(std::int32_t id) const;
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  std::optional<std::int32_t> bos_id() const;  ///< from tokenizer_config.json, if that names one
  std::optional<std::int32_t> eos_id() const;
  const std::string& chat_template() const;  ///< empty where there is none
  bool clean_up_tokenization_spaces() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Decodes a growing sequence of ids so that only whole UTF-8 characters come out.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  /// Text that this id completes (maybe empty). Special tokens are skipped.
  std::string push(std::int32_t id);
  /// What is left, incomplete bytes as U+FFFD.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

/// First byte position that is not part of valid UTF-8, or nothing.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

}  // namespace seer
