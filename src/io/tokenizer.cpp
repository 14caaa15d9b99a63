#include "io/tokenizer.h"

#include <deque>
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "io/tensor_file.h"
#include "io/tokenizer_parts.h"
#include "io/utf8.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

/// Splits every piece; empty ones vanish.
std::vector<std::string_view> split_pieces(const Split& split, const std::vector<std::string_view>& pieces) {
  std::vector<std::string_view> result;
  std::vector<std::pair<std::size_t, std::size_t>> matches;
  for (const std::string_view piece : pieces) {
    matches.clear();
    split.regex.find_all(piece, matches);
    std::size_t at = 0;
    for (const auto& [begin, end] : matches) {
      if (split.keep_gaps && begin > at) result.push_back(piece.substr(at, begin - at));
      if (split.keep_matches) result.push_back(piece.substr(begin, end - begin));
      at = end;
    }
    if (split.keep_gaps && at < piece.size()) result.push_back(piece.substr(at));
  }
  return result;
}

/// Bytes of white space at the end (or start) of valid UTF-8.
std::size_t white_space_at_end(std::string_view text) {
  std::size_t begin = text.size();
  while (begin > 0) {
    std::size_t at = begin - 1;
    while ((text[at] & 0xc0) == 0x80) --at;
    if (!is_white_space(first_character(text.substr(at)))) break;
    begin = at;
  }
  return text.size() - begin;
}

std::size_t white_space_at_start(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size() && is_white_space(first_character(text.substr(end))))
    end += utf8_step(text.substr(end)).length;
  return end;
}

/// Characters below U+0300 are in normal form C whatever follows them, if only such follow.
bool is_surely_nfc(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0xcc) return false;
  return true;
}

/// One encode() call.
class Encoding {
 public:
  explicit Encoding(const TokenizerParts& parts) : parts_(parts) {}

  void append(std::string_view text) {
    split_added(parts_.added_before_normalizer, text, [&](std::string_view part) {
      if (parts_.nfc && !is_surely_nfc(part)) part = texts_.emplace_back(to_nfc(part));
      split_added(parts_.added_after_normalizer, part, [&](std::string_view plain) { append_plain(plain); });
    });
  }

  std::vector<std::int32_t> ids;

 private:
  /// Appends the ids of the added tokens in `text` and calls `rest` with what lies between.
  template <class Rest>
  void split_added(const TokenTrie& trie, std::string_view text, Rest&& rest) {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size() && !trie.empty();) {
      const auto [length, id] = trie.longest_prefix(text.substr(at));
      if (length == 0 || at < done) {
        ++at;
        continue;
      }
      const AddedToken& token = parts_.added_tokens.at(id);
      std::size_t begin = at, end = at + length;
      at = end;
      if (token.strip_left) begin -= white_space_at_end(text.substr(done, begin - done));
      if (token.strip_right) end += white_space_at_start(text.substr(end));
      if (begin > done) rest(text.substr(done, begin - done));
      ids.push_back(id);
      done = end;
    }
    if (done < text.size()) rest(text.substr(done));
  }

  void append_plain(std::string_view text) {
    std::vector<std::string_view> pieces = {text};
    for (const Split& split : parts_.splits) pieces = split_pieces(split, pieces);
    if (parts_.add_prefix_space)
      for (std::string_view& piece : pieces)
        if (!piece.starts_with(' ')) piece = texts_.emplace_back(" " + std::string(piece));
    for (const Split& split : parts_.splits_after_prefix_space) pieces = split_pieces(split, pieces);
    for (const std::string_view word : pieces) append_word(word);
  }

  void append_word(std::string_view word) {
    const auto [seen, is_new] = seen_.try_emplace(word, ids.size(), 0);
    auto& [first, count] = seen->second;
    if (!is_new) {
      for (std::size_t i = 0; i < count; ++i) {
        const std::int32_t id = ids[first + i];  // a copy: push_back may move the ids
        ids.push_back(id);
      }
      return;
    }
    const auto whole = parts_.ignore_merges ? parts_.id_of_word.find(word) : parts_.id_of_word.end();
    if (whole != parts_.id_of_word.end())
      ids.push_back(whole->second);
    else
      parts_.bpe.encode(word, ids, scratch_);
    count = ids.size() - first;
  }

  const TokenizerParts& parts_;
  std::deque<std::string> texts_;  // normalised ones; pieces and seen words point into them
  std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen_;  // first id and count
  BytePairEncoder::Scratch scratch_;
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::size_t at = text.find(from);
  if (at == std::string::npos) return;
  std::string result;
  std::size_t done = 0;
  for (; at != std::string::npos; at = text.find(from, done)) {
    result.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  text = result.append(text, done);
}

/// The replacements that `transformers` makes in decoded text when a tokenizer asks for them.
void clean_up(std::string& text) {
  for (const auto& [from, to] : {std::pair<std::string_view, std::string_view>{" .", "."},
                                 {" ?", "?"},
                                 {" !", "!"},
                                 {" ,", ","},
                                 {" ' ", "'"},
                                 {" n't", "n't"},
                                 {" 'm", "'m"},
                                 {" 's", "'s"},
                                 {" 've", "'ve"},
                                 {" 're", "'re"}})
    replace_all(text, from, to);
}

}  // namespace

void TokenTrie::add(std::string_view text, std::int32_t id) {
  std::uint32_t node = kRoot;
  for (const char c : text) {
    const std::uint64_t key = std::uint64_t{node} << 8 | static_cast<unsigned char>(c);
    const auto [edge, is_new] = next_.try_emplace(key, static_cast<std::uint32_t>(ids_.size()));
    if (is_new) ids_.push_back(-1);
    node = edge->second;
  }
  ids_[node] = id;
}

std::pair<std::size_t, std::int32_t> TokenTrie::longest_prefix(std::string_view text) const {
  std::pair<std::size_t, std::int32_t> best = {0, -1};
  std::uint32_t node = kRoot;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto edge = next_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (edge == next_.end()) break;
    node = edge->second;
    if (ids_[node] >= 0) best = {i + 1, ids_[node]};
  }
  return best;
}

const TokenizerParts::Token& TokenizerParts::token(std::int32_t id) const {
  SEER_CHECK(
      id >= 0 && static_cast<std::size_t>(id) < tokens.size() && tokens[static_cast<std::size_t>(id)].known,
      "{}: token id: expected one of the vocabulary (below {}), found {}", label, tokens.size(), id);
  return tokens[static_cast<std::size_t>(id)];
}

struct Tokenizer::Impl : TokenizerParts {};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::string& folder) {
  const std::string path = (fs::path(folder) / "tokenizer.json").string();
  Tokenizer tokenizer = parse(read_file(path), path);
  const fs::path config = fs::path(folder) / "tokenizer_config.json";
  if (fs::exists(config))
    parse_tokenizer_config(read_file(config.string()), config.string(), *tokenizer.impl_);
  const fs::path chat_template = fs::path(folder) / "chat_template.jinja";
  if (fs::exists(chat_template)) tokenizer.impl_->chat_template = read_file(chat_template.string());
  return tokenizer;
}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, const std::string& label) {
  return Tokenizer(std::make_unique<Impl>(Impl{parse_tokenizer_json(tokenizer_json, label)}));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (const auto bad = find_invalid_utf8(text)) fail("text: invalid UTF-8 at byte {}", *bad);
  Encoding encoding(*impl_);
  if (add_special_tokens) encoding.ids = impl_->ids_before;
  encoding.append(text);
  if (add_special_tokens)
    encoding.ids.insert(encoding.ids.end(), impl_->ids_after.begin(), impl_->ids_after.end());
  return std::move(encoding.ids);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string bytes, text;
  for (const std::int32_t id : ids) {
    const Impl::Token& token = impl_->token(id);
    if (!(skip_special_tokens && token.special)) bytes += token.bytes;
  }
  append_utf8(bytes, /*whole=*/true, text);
  if (impl_->clean_up_tokenization_spaces) clean_up(text);
  return text;
}

const std::string& Tokenizer::token_bytes(std::int32_t id) const { return impl_->token(id).bytes; }

std::int64_t Tokenizer::vocab_size() const { return static_cast<std::int64_t>(impl_->tokens.size()); }

bool Tokenizer::is_special(std::int32_t id) const { return impl_->token(id).special; }

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto found = impl_->id_of_token.find(token);
  return found == impl_->id_of_token.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::int32_t> Tokenizer::bos_id() const { return impl_->bos_id; }
std::optional<std::int32_t> Tokenizer::eos_id() const { return impl_->eos_id; }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }
bool Tokenizer::clean_up_tokenization_spaces() const { return impl_->clean_up_tokenization_spaces; }

std::string StreamDecoder::push(std::int32_t id) {
  if (tokenizer_.is_special(id)) return "";
  pending_ += tokenizer_.token_bytes(id);
  std::string text;
  pending_.erase(0, append_utf8(pending_, /*whole=*/false, text));
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  append_utf8(pending_, /*whole=*/true, text);
  pending_.clear();
  return text;
}

}  // namespace seer
