#include "io/template_lexer.h"

#include <cctype>
#include <utility>

#include "core/check.h"
#include "io/message.h"
#include "io/utf8.h"

namespace seer::chat {
namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";
constexpr std::string_view kOperators[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*",
                                           "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                           "]",  "{",  "}",  ".",  ",",  ":",  "|"};

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Newlines of any kind become \n; the last one goes.
std::string normalize_newlines(std::string_view source) {
  std::string text;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

void append_character(char32_t c, std::string& text) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xc0 | c >> 6);
    text += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    text += static_cast<char>(0xe0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    text += static_cast<char>(0x80 | (c & 0x3f));
  }
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_and_tag();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }

  void advance(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) line_ += source_[at_ + i] == '\n';
    at_ += count;
  }
  void push(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Text up to the next tag, and the tag.
  void text_and_tag() {
    std::size_t tag = source_.find('{', at_);
    while (tag != std::string::npos &&
           (tag + 1 == source_.size() || std::string_view("{%#").find(source_[tag + 1]) == std::string::npos))
      tag = source_.find('{', tag + 1);
    if (tag == std::string::npos) {
      push(TokenKind::kText, std::string(rest()));
      return advance(source_.size() - at_);
    }
    std::string text = source_.substr(at_, tag - at_);
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      text.erase(text.find_last_not_of(kSpace) + 1);
    } else if (sign != '+' && kind != '{') {
      const std::size_t line = text.rfind('\n') + 1;  // 0 without one
      if ((line > 0 || at_line_start_) && text.find_first_not_of(kSpace, line) == std::string::npos)
        text.erase(line);
    }
    if (!text.empty()) push(TokenKind::kText, std::move(text));
    advance(tag + (sign == '-' || sign == '+' ? 3 : 2) - at_);
    if (kind == '#') return comment();
    push(kind == '{' ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
    tag_inside(kind == '{' ? "}}" : "%}");
    push(kind == '{' ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
  }

  void comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail_at(line_, "a comment {# without #}");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_tag(sign, /*is_block=*/true);
  }

  /// Whitespace behind a tag that ended with `sign`.
  void after_tag(char sign, bool is_block) {
    const std::size_t begin = at_;
    if (sign == '-') {
      const std::size_t next = source_.find_first_not_of(kSpace, at_);
      advance((next == std::string::npos ? source_.size() : next) - at_);
    } else if (is_block && sign != '+' && rest().starts_with('\n')) {
      advance(1);
    }
    at_line_start_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  /// Tokens up to and with the tag's end.
  void tag_inside(std::string_view end) {
    std::string brackets;
    for (;;) {
      const std::size_t next = source_.find_first_not_of(kSpace, at_);
      if (next == std::string::npos) fail_at(line_, fmt::format("a tag without its end {}", end));
      advance(next - at_);
      if (brackets.empty()) {
        const bool is_signed = rest()[0] == '-' || (rest()[0] == '+' && end == "%}");
        if (rest().substr(is_signed ? 1 : 0).starts_with(end)) {
          const char sign = is_signed ? rest()[0] : '\0';
          advance(end.size() + (is_signed ? 1 : 0));
          return after_tag(sign, end == "%}");
        }
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const std::string_view text = rest();
    const char c = text[0];
    std::size_t size = 1;
    if (is_name_start(c)) {
      while (size < text.size() && (is_name_start(text[size]) || is_digit(text[size]))) ++size;
      push(TokenKind::kName, std::string(text.substr(0, size)));
    } else if (is_digit(c)) {
      while (size < text.size() && is_digit(text[size])) ++size;
      TokenKind kind = TokenKind::kInteger;
      if (size + 1 < text.size() && text[size] == '.' && is_digit(text[size + 1])) {
        kind = TokenKind::kFloat;
        for (++size; size < text.size() && is_digit(text[size]);) ++size;
      }
      push(kind, std::string(text.substr(0, size)));
    } else if (c == '"' || c == '\'') {
      return string(c);
    } else {
      for (const std::string_view op : kOperators)
        if (text.starts_with(op)) return operation(op, brackets);
      fail_at(line_, fmt::format("{} is not supported", in_quotes(text.substr(0, 1))));
    }
    advance(size);
  }

  void operation(std::string_view op, std::string& brackets) {
    if (op == "(" || op == "[" || op == "{") brackets += op == "(" ? ')' : op == "[" ? ']' : '}';
    if (op == ")" || op == "]" || op == "}") {
      if (brackets.empty() || brackets.back() != op[0])
        fail_at(line_, fmt::format("{} closes no bracket", in_quotes(op)));
      brackets.pop_back();
    }
    push(TokenKind::kOperator, std::string(op));
    advance(op.size());
  }

  void string(char quote) {
    std::string value;
    std::size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\') {
        value += source_[i];
        continue;
      }
      const char c = ++i < source_.size() ? source_[i] : '\0';
      const std::size_t simple = std::string_view("ntr\\'\"").find(c);
      if (simple != std::string_view::npos) {
        value += "\n\t\r\\'\""[simple];
      } else if (c == '\n') {
        continue;  // a line that goes on
      } else if (c == 'x' || c == 'u') {
        append_character(hexadecimal(i + 1, c == 'x' ? 2 : 4), value);
        i += c == 'x' ? 2 : 4;
      } else {
        fail_at(line_, fmt::format("the escape {} is not supported", in_quotes(std::string{'\\', c})));
      }
    }
    if (i >= source_.size()) fail_at(line_, "a string without its closing quote");
    push(TokenKind::kString, std::move(value));
    advance(i + 1 - at_);
  }

  char32_t hexadecimal(std::size_t at, std::size_t digits) {
    char32_t value = 0;
    for (std::size_t i = at; i < at + digits; ++i) {
      const char c = i < source_.size() ? source_[i] : '\0';
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0) fail_at(line_, "an escape without its digits");
      value = value * 16 + static_cast<char32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (value >= 0xd800 && value < 0xe000)
      fail_at(line_, "an escape of half a surrogate pair is not supported");
    return value;
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

void fail_at(int line, const std::string& message) { fail("chat_template: line {}: {}", line, message); }

}  // namespace seer::chat
