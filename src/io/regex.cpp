#include "io/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <new>

#include "core/check.h"
#include "io/message.h"

namespace seer {
namespace {

/// White_Space, to be put inside [] or [^]. PCRE2's own \s has U+180E too.
constexpr const char* kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// Steps after which matching a text of `size` bytes is given up; patterns in use need a few per byte.
constexpr std::size_t kStepsPerByte = 1000, kLeastSteps = 1'000'000;
constexpr std::size_t kJitStack = std::size_t{16} << 20;
constexpr std::size_t kLongestPattern = 100'000;

/// Rewrites a pattern for PCRE2, refusing what it would understand in another way.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& label) : pattern_(pattern), label_(label) {}

  std::string translate() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape(/*in_class=*/false);
      } else if (c == '[') {
        character_class();
      } else if (c == '(' && next_is("?")) {
        group();
      } else if (c == '(' && next_is("*")) {
        refuse(2);
      } else if (c == '^' || c == '$') {
        refuse(1);
      } else if (c == '}' && next_is("+")) {  // possessive in PCRE2 only
        refuse(2);
      } else {
        result_ += c;
        ++at_;
      }
    }
    return std::move(result_);
  }

 private:
  bool next_is(std::string_view text) const { return pattern_.substr(at_ + 1).starts_with(text); }

  [[noreturn]] void refuse(std::size_t length) const {
    fail("{}: regular expression {}: {} at byte {} is not supported", label_, in_quotes(pattern_),
         in_quotes(pattern_.substr(at_, length)), at_);
  }

  void copy(std::size_t length) {
    result_ += pattern_.substr(at_, length);
    at_ += length;
  }

  void group() {
    for (const std::string_view start : {"?:", "?i:", "?=", "?!", "?<=", "?<!"})
      if (next_is(start)) return copy(start.size() + 1);
    refuse(4);
  }

  void escape(bool in_class) {
    const char c = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (c == 's' || (c == 'S' && !in_class)) {
      if (in_class)
        result_ += kWhiteSpace;
      else
        result_ += fmt::format("[{}{}]", c == 's' ? "" : "^", kWhiteSpace);
      at_ += 2;
    } else if (c == 'p' || c == 'P') {
      const std::size_t close = pattern_.find('}', at_);
      if (!pattern_.substr(at_ + 2).starts_with('{') || close == std::string_view::npos) refuse(2);
      copy(close + 1 - at_);
    } else if (std::string_view("rntdD").find(c) != std::string_view::npos ||
               (c > ' ' && c < 0x7f && std::isalnum(static_cast<unsigned char>(c)) == 0)) {
      copy(2);
    } else {
      refuse(2);
    }
  }

  void character_class() {
    const std::size_t first = next_is("^") ? at_ + 2 : at_ + 1;
    copy(first - at_);
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      if (pattern_[at_] == '\\')
        escape(/*in_class=*/true);
      else if (pattern_[at_] == '[' || pattern_.substr(at_).starts_with("&&"))
        refuse(2);
      else
        copy(1);
    }
    if (at_ >= pattern_.size() || at_ == first) refuse(1);
    copy(1);
  }

  std::string_view pattern_;
  const std::string& label_;
  std::size_t at_ = 0;
  std::string result_;
};

/// What one search needs besides the pattern.
struct Scratch {
  explicit Scratch(const pcre2_code* code, std::size_t text_size)
      : match(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, kJitStack, nullptr)) {
    if (match == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_jit_stack_assign(context, nullptr, stack);
    const std::size_t steps = std::max(kLeastSteps, text_size * kStepsPerByte);
    pcre2_set_match_limit(context, static_cast<std::uint32_t>(std::min<std::size_t>(steps, UINT32_MAX)));
  }
  ~Scratch() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::string pcre2_message(int code) {
  unsigned char text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

Regex::Regex(std::string_view pattern, const std::string& label) : label_(label) {
  SEER_CHECK(pattern.size() <= kLongestPattern, "{}: regular expression: expected at most {} bytes, found {}",
             label, kLongestPattern, pattern.size());
  const std::string translated = Translator(pattern, label).translate();
  int error = 0;
  std::size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  SEER_CHECK(code != nullptr, "{}: regular expression {}: {}", label, in_quotes(pattern),
             pcre2_message(error));
  code_ = std::shared_ptr<const void>(code, [](void* c) { pcre2_code_free(static_cast<pcre2_code*>(c)); });
  // Without JIT the same matches come out more slowly.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

void Regex::find_all(std::string_view text, std::vector<std::pair<std::size_t, std::size_t>>& matches) const {
  if (text.empty()) return;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const Scratch scratch(code, text.size());
  const std::size_t* range = pcre2_get_ovector_pointer(scratch.match);
  for (std::size_t start = 0; start < text.size();) {
    const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                                   PCRE2_NO_UTF_CHECK, scratch.match, scratch.context);
    if (result == PCRE2_ERROR_NOMATCH) return;
    SEER_CHECK(result >= 0, "{}: matching the regular expression failed at byte {}: {}", label_, start,
               pcre2_message(result));
    const auto [begin, end] = std::pair(range[0], range[1]);
    if (end > begin) {
      matches.emplace_back(begin, end);
      start = end;
    } else {  // an empty match: look on behind the next character
      start = begin + 1;
      while (start < text.size() && (text[start] & 0xc0) == 0x80) ++start;
    }
  }
}

std::string escape_regex(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::ispunct(static_cast<unsigned char>(c)) != 0) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace seer
