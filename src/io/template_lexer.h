// Chat templates, step 1: characters to tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace seer::chat {

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;  // of a string: its value
  int line;
};

/// Splits a template with the whitespace rules of trim_blocks and lstrip_blocks and without a last newline,
/// as `transformers` sets them. Throws Error naming line and construct.
std::vector<Token> tokenize(std::string_view source);

/// Throws Error: "chat_template: line N: ...".
[[noreturn]] void fail_at(int line, const std::string& message);

}  // namespace seer::chat
