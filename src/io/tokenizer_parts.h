// What a Tokenizer is made of, as tokenizer_json.cpp reads them from a file and tokenizer.cpp runs them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/byte_pair_encoder.h"
#include "io/regex.h"

namespace seer {

/// Finds the longest token at a position of a text.
class TokenTrie {
 public:
  void add(std::string_view text, std::int32_t id);
  /// Length and id of the longest token that `text` starts with; length 0 if there is none.
  std::pair<std::size_t, std::int32_t> longest_prefix(std::string_view text) const;
  bool empty() const { return next_.empty(); }

 private:
  static constexpr std::uint32_t kRoot = 0;
  std::unordered_map<std::uint64_t, std::uint32_t> next_;  // node << 8 | byte -> node
  std::vector<std::int32_t> ids_ = {-1};                   // of nodes, -1: no token ends here
};

/// A token that is found in the text before everything else.
struct AddedToken {
  std::string content;
  bool special = false;
  bool strip_left = false, strip_right = false;  // takes the white space beside it too
};

/// One splitting step of the pre-tokenizer: matches are pieces of their own, and what lies between too...
struct Split {
  Regex regex;
  bool keep_matches = true;  // ... unless one of them is removed
  bool keep_gaps = true;
};

struct TransparentHash : std::hash<std::string_view> {
  using is_transparent = void;
};
template <class Value>
using StringMap = std::unordered_map<std::string, Value, TransparentHash, std::equal_to<>>;

/// A Tokenizer's state.
struct TokenizerParts {
  std::string label;

  std::unordered_map<std::int32_t, AddedToken> added_tokens;
  TokenTrie added_before_normalizer, added_after_normalizer;
  bool nfc = false;
  std::vector<Split> splits;
  bool add_prefix_space = false;
  std::vector<Split> splits_after_prefix_space;
  bool ignore_merges = false;
  StringMap<std::int32_t> id_of_word;  // by bytes; only with ignore_merges
  BytePairEncoder bpe;
  std::vector<std::int32_t> ids_before, ids_after;  // special tokens that the post-processor adds

  StringMap<std::int32_t> id_of_token;  // by the name in the file
  struct Token {
    bool known = false, special = false;
    std::string bytes;
  };
  std::vector<Token> tokens;  // by id

  std::optional<std::int32_t> bos_id, eos_id;
  std::string chat_template;
  bool clean_up_tokenization_spaces = false;

  const Token& token(std::int32_t id) const;
};

/// Reads tokenizer.json; throws Error naming `label` and the field.
TokenizerParts parse_tokenizer_json(std::string_view json, const std::string& label);
/// Reads what tokenizer_config.json adds: bos_token, eos_token, chat_template, clean_up_tokenization_spaces.
void parse_tokenizer_config(std::string_view json, const std::string& label, TokenizerParts& parts);

}  // namespace seer
