// Chat templates, step 3: the values that expressions have, as Python shows and compares them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace seer::chat {

class Value;

struct Undefined {
  std::string name;  // for messages
};
struct None {};

struct List {
  std::vector<Value> items;
  int depth = 0;  // of nesting
};

/// A dict with string keys in the order they were set.
struct Dict {
  std::vector<std::pair<std::string, Value>> items;
  int depth = 0;
  const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};

/// What namespace() makes: a dict that changes. The interpreter owns it, so that it may hold itself.
struct Namespace {
  Dict values;
};

/// A global function or a method bound to its object.
struct Function {
  std::string name;
  std::shared_ptr<const Value> self;  // null: global
};

class Value {
 public:
  using Of = std::variant<Undefined, None, bool, std::int64_t, double, std::string,
                          std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*, Function>;
  Value() : of_(None{}) {}
  Value(bool x) : of_(x) {}
  Value(std::int64_t x) : of_(x) {}
  Value(double x) : of_(x) {}
  Value(std::string x) : of_(std::move(x)) {}
  Value(const char* x) : of_(std::string(x)) {}
  Value(Undefined x) : of_(std::move(x)) {}
  Value(Function x) : of_(std::move(x)) {}
  Value(Namespace* x) : of_(x) {}
  /// Throws Error when lists and dicts nest deeper than kDeepest, so that recursion over them is bounded.
  Value(List list);
  Value(Dict dict);

  template <class T>
  const T* get() const {
    return std::get_if<T>(&of_);
  }
  const List* list() const;
  const Dict* dict() const;  ///< a namespace's too
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  int depth() const;

 private:
  Of of_;
};

/// "a string", "a list", ...; for messages.
const char* kind_of(const Value& value);
bool is_true(const Value& value);
/// Python's ==. Costs one unit of `steps` a value compared; throws Error when they are used up.
bool equal(const Value& a, const Value& b, std::int64_t& steps);
/// A number, bool as 0 or 1, or nothing.
const double* as_number(const Value& value, double& storage);
/// str(value) of strings, numbers, bools, None and undefined values; Error for others.
std::string to_string(const Value& value);
/// json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: one line.
std::string to_json(const Value& value, int indent, std::int64_t& steps);

/// Python's str methods, by characters.
std::string strip(std::string_view text, const Value* characters, bool left, bool right);
std::string change_case(std::string_view text, bool upper);
std::int64_t count_characters(std::string_view text);
/// Characters as a list of strings.
std::vector<std::string_view> characters_of(std::string_view text);

}  // namespace seer::chat
