#include "io/chat_template.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <optional>
#include <utility>

#include "core/check.h"
#include "io/message.h"
#include "io/template_lexer.h"
#include "io/template_syntax.h"
#include "io/template_value.h"
#include "io/tokenizer.h"

namespace seer {
namespace chat {
namespace {

constexpr std::size_t kLargestTemplate = 1 << 20, kLargestText = std::size_t{256} << 20;
// Nodes evaluated: so many, and more for long conversations.
constexpr std::int64_t kMostSteps = 1'000'000, kStepsPerMessage = 2'000;
constexpr std::size_t kBytesPerStep = 64;  // long strings cost more
constexpr std::int64_t kLargestRange = 100'000;

/// Names and their values, innermost scope last.
class Scopes {
 public:
  void enter() { scopes_.emplace_back(); }
  void leave() { scopes_.pop_back(); }
  void set(std::string_view name, Value value) {
    for (auto& [key, old] : scopes_.back())
      if (key == name) {
        old = std::move(value);
        return;
      }
    scopes_.back().emplace_back(name, std::move(value));
  }
  const Value* find(std::string_view name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      for (const auto& [key, value] : *scope)
        if (key == name) return &value;
    return nullptr;
  }

 private:
  std::vector<std::vector<std::pair<std::string, Value>>> scopes_ = {{}};
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  explicit Interpreter(std::int64_t steps) : steps_(steps) {
    for (const char* name : {"raise_exception", "namespace", "range"})
      scopes_.set(name, Function{name, nullptr});
  }

  void define(std::string_view name, Value value) { scopes_.set(name, std::move(value)); }

  std::string run(const Block& block) {
    scopes_.enter();
    run_block(block);
    return std::move(output_);
  }

 private:
  [[noreturn]] void fail_here(const std::string& message) const { fail_at(line_, message); }

  void spend(std::size_t bytes = 0) {
    steps_ -= 1 + static_cast<std::int64_t>(bytes / kBytesPerStep);
    if (steps_ <= 0) fail_here("takes too many steps");
  }
  Value text(std::string value) {
    if (value.size() > kLargestText) fail_here(fmt::format("a text is longer than {} bytes", kLargestText));
    spend(value.size());
    return Value(std::move(value));
  }

  // Statements

  Flow run_block(const Block& block) {
    for (const Statement& statement : block) {
      const Flow flow = run_statement(statement);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow run_statement(const Statement& statement) {
    line_ = statement.line;
    spend();
    switch (statement.kind) {
      case StatementKind::kText:
        append(statement.text);
        return Flow::kNext;
      case StatementKind::kOutput:
        append(to_string(evaluate(*statement.value)));
        return Flow::kNext;
      case StatementKind::kSet:
        run_set(statement);
        return Flow::kNext;
      case StatementKind::kIf:
        for (const Branch& branch : statement.branches)
          if (branch.condition == nullptr || is_true(evaluate(*branch.condition)))
            return run_block(branch.body);
        return Flow::kNext;
      case StatementKind::kFor:
        return run_for(statement);
      case StatementKind::kBreak:
        return Flow::kBreak;
      case StatementKind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  void append(std::string_view text) {
    if (output_.size() + text.size() > kLargestText)
      fail_here(fmt::format("the text is longer than {} bytes", kLargestText));
    spend(text.size());
    output_ += text;
  }

  void run_set(const Statement& statement) {
    Value value = evaluate(*statement.value);
    if (statement.names.size() == 1) return scopes_.set(statement.names[0], std::move(value));
    const Value* target = scopes_.find(statement.names[0]);
    Namespace* const* space = target != nullptr ? target->get<Namespace*>() : nullptr;
    if (space == nullptr)
      fail_here(fmt::format("set {}.{}: expected a namespace", statement.names[0], statement.names[1]));
    (*space)->values.set(statement.names[1], std::move(value));
  }

  Flow run_for(const Statement& statement) {
    const std::vector<Value> all = items_of(evaluate(*statement.value));
    std::vector<Value> items;
    for (const Value& item : all) {
      if (statement.condition == nullptr) break;
      scopes_.enter();
      bind(statement, item);
      if (is_true(evaluate(*statement.condition))) items.push_back(item);
      scopes_.leave();
    }
    const std::vector<Value>& chosen = statement.condition == nullptr ? all : items;
    const auto count = static_cast<std::int64_t>(chosen.size());
    Flow flow = Flow::kNext;
    for (std::int64_t i = 0; i < count && flow != Flow::kBreak; ++i) {
      scopes_.enter();
      bind(statement, chosen[static_cast<std::size_t>(i)]);
      scopes_.set("loop", loop_at(chosen, i));
      flow = run_block(statement.body);
      scopes_.leave();
    }
    if (count == 0 && !statement.branches.empty()) return run_block(statement.branches[0].body);
    return Flow::kNext;
  }

  void bind(const Statement& statement, const Value& item) {
    if (statement.names.size() == 1) return scopes_.set(statement.names[0], item);
    const List* parts = item.list();
    if (parts == nullptr || parts->items.size() != statement.names.size())
      fail_here(fmt::format("for: expected {} values for its names", statement.names.size()));
    for (std::size_t i = 0; i < parts->items.size(); ++i) scopes_.set(statement.names[i], parts->items[i]);
  }

  static Value loop_at(const std::vector<Value>& items, std::int64_t i) {
    const auto count = static_cast<std::int64_t>(items.size());
    const auto item = [&](std::int64_t j) { return items[static_cast<std::size_t>(j)]; };
    Dict loop;
    loop.set("index", i + 1);
    loop.set("index0", i);
    loop.set("revindex", count - i);
    loop.set("revindex0", count - i - 1);
    loop.set("first", i == 0);
    loop.set("last", i == count - 1);
    loop.set("length", count);
    if (i > 0) loop.set("previtem", item(i - 1));
    if (i + 1 < count) loop.set("nextitem", item(i + 1));
    return loop;
  }

  /// What a for loop goes over.
  std::vector<Value> items_of(const Value& value) {
    std::vector<Value> items;
    if (const List* list = value.list()) {
      items = list->items;
    } else if (const auto* string = value.get<std::string>()) {
      spend(string->size() * kBytesPerStep);
      for (const std::string_view character : characters_of(*string)) items.push_back(std::string(character));
    } else if (const Dict* dict = value.dict(); dict != nullptr && value.get<Namespace*>() == nullptr) {
      for (const auto& [key, entry] : dict->items) items.push_back(key);
    } else if (!value.is_undefined()) {
      fail_here(fmt::format("expected a list, found {}", kind_of(value)));
    }
    spend(items.size() * kBytesPerStep);
    return items;
  }

  // Expressions

  Value evaluate(const Expression& e) {
    line_ = e.line;
    spend();
    const auto operand = [&](std::size_t i) { return evaluate(*e.operands[i]); };
    switch (e.kind) {
      case ExpressionKind::kString:
        return text(e.text);
      case ExpressionKind::kInteger: {
        std::int64_t number = 0;
        for (const char digit : e.text)
          if (__builtin_mul_overflow(number, std::int64_t{10}, &number) ||
              __builtin_add_overflow(number, std::int64_t{digit - '0'}, &number))
            fail_here("an integer does not fit in 64 bits");
        return number;
      }
      case ExpressionKind::kFloat:
        return std::stod(e.text);
      case ExpressionKind::kTrue:
        return true;
      case ExpressionKind::kFalse:
        return false;
      case ExpressionKind::kNone:
        return {};
      case ExpressionKind::kName: {
        const Value* value = scopes_.find(e.text);
        if (value == nullptr) return Undefined{e.text};
        if (const auto* string = value->get<std::string>()) spend(string->size());
        return *value;
      }
      case ExpressionKind::kList: {
        List list;
        for (const ExpressionPointer& item : e.operands) list.items.push_back(evaluate(*item));
        return list;
      }
      case ExpressionKind::kDict: {
        Dict dict;
        for (std::size_t i = 0; i + 1 < e.operands.size(); i += 2) {
          const Value key = operand(i);
          dict.set(expect_string(key, "a dict's key"), operand(i + 1));
        }
        return dict;
      }
      case ExpressionKind::kAttribute:
        return attribute(operand(0), e.text);
      case ExpressionKind::kItem:
        return item(operand(0), operand(1));
      case ExpressionKind::kSlice:
        return slice(e);
      case ExpressionKind::kCall:
        return call(operand(0), arguments(e));
      case ExpressionKind::kFilter: {
        const Value value = operand(0);
        return filter(e.text, value, arguments(e));
      }
      case ExpressionKind::kTest: {
        const Value value = operand(0);
        return test(e.text, value, arguments(e).positional);
      }
      case ExpressionKind::kNot:
        return !is_true(operand(0));
      case ExpressionKind::kNegative:
        return binary("-", std::int64_t{0}, operand(0));
      case ExpressionKind::kBinary: {
        const Value left = operand(0);
        return binary(e.text, left, operand(1));
      }
      case ExpressionKind::kCompare:
        return compare_chain(e);
      case ExpressionKind::kAnd: {
        Value left = operand(0);
        return is_true(left) ? operand(1) : left;
      }
      case ExpressionKind::kOr: {
        Value left = operand(0);
        return is_true(left) ? left : operand(1);
      }
      case ExpressionKind::kChoice:
        if (is_true(operand(1))) return operand(0);
        return e.operands[2] != nullptr ? operand(2)
                                        : Value(Undefined{"the other choice of an if without else"});
    }
    return {};
  }

  Arguments arguments(const Expression& e) {
    Arguments arguments;
    for (std::size_t i = 1; i < e.operands.size(); ++i)
      arguments.positional.push_back(evaluate(*e.operands[i]));
    for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value));
    return arguments;
  }

  const std::string& expect_string(const Value& value, std::string_view what) const {
    const auto* string = value.get<std::string>();
    if (string == nullptr) fail_here(fmt::format("{}: expected a string, found {}", what, kind_of(value)));
    return *string;
  }

  void refuse_undefined(const Value& value) const {
    if (const auto* undefined = value.get<Undefined>())
      fail_here(fmt::format("{} is undefined", in_quotes(undefined->name)));
  }

  static bool is_method(const Value& value, std::string_view name) {
    const auto among = [&](std::initializer_list<std::string_view> names) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (value.get<std::string>() != nullptr)
      return among(
          {"strip", "lstrip", "rstrip", "startswith", "endswith", "split", "upper", "lower", "replace"});
    return value.get<Namespace*>() == nullptr && value.dict() != nullptr &&
           among({"items", "keys", "values", "get"});
  }

  Value attribute(const Value& value, const std::string& name) {
    refuse_undefined(value);
    if (is_method(value, name)) return Function{name, std::make_shared<const Value>(value)};
    if (const Dict* dict = value.dict())
      if (const Value* found = dict->find(name)) return *found;
    return Undefined{name};
  }

  Value item(const Value& value, const Value& key) {
    refuse_undefined(value);
    if (const auto* name = key.get<std::string>()) {
      if (const Dict* dict = value.dict())
        if (const Value* found = dict->find(*name)) return *found;
      return attribute(value, *name);
    }
    const auto* index = key.get<std::int64_t>();
    if (index == nullptr)
      fail_here(fmt::format("an index: expected an integer or a string, found {}", kind_of(key)));
    if (const List* list = value.list()) {
      const auto size = static_cast<std::int64_t>(list->items.size());
      const std::int64_t i = *index < 0 ? *index + size : *index;
      if (i >= 0 && i < size) return list->items[static_cast<std::size_t>(i)];
    } else if (const auto* string = value.get<std::string>()) {
      const auto characters = characters_of(*string);
      spend(string->size());
      const auto size = static_cast<std::int64_t>(characters.size());
      const std::int64_t i = *index < 0 ? *index + size : *index;
      if (i >= 0 && i < size) return std::string(characters[static_cast<std::size_t>(i)]);
    }
    return Undefined{fmt::format("item {}", *index)};
  }

  Value slice(const Expression& e) {
    const Value value = evaluate(*e.operands[0]);
    refuse_undefined(value);
    if (value.list() == nullptr && value.get<std::string>() == nullptr)
      fail_here(fmt::format("a slice: expected a list or a string, found {}", kind_of(value)));
    const std::vector<std::string_view> characters =
        value.list() == nullptr ? characters_of(*value.get<std::string>()) : std::vector<std::string_view>();
    const auto bound = [&](std::size_t i) -> std::optional<std::int64_t> {
      if (e.operands[i] == nullptr) return std::nullopt;
      const Value number = evaluate(*e.operands[i]);
      if (number.is_none()) return std::nullopt;
      const auto* integer = number.get<std::int64_t>();
      if (integer == nullptr)
        fail_here(fmt::format("a slice: expected an integer, found {}", kind_of(number)));
      return *integer;
    };
    const auto size =
        static_cast<std::int64_t>(value.list() != nullptr ? value.list()->items.size() : characters.size());
    const std::int64_t step = std::clamp<std::int64_t>(bound(3).value_or(1), -size - 1, size + 1);
    if (step == 0) fail_here("a slice: expected a step other than 0");
    // Python's rule: bounds count from the end when negative, and are cut to what the direction can reach.
    const std::int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? size : size - 1;
    const auto cut = [&](std::optional<std::int64_t> at, std::int64_t fallback) {
      if (!at) return fallback;
      return std::clamp(*at < 0 ? *at + size : *at, lowest, highest);
    };
    const std::int64_t begin = cut(bound(1), step > 0 ? lowest : highest);
    const std::int64_t end = cut(bound(2), step > 0 ? highest : lowest);
    List items;
    std::string joined;
    for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      if (value.list() != nullptr)
        items.items.push_back(value.list()->items[static_cast<std::size_t>(i)]);
      else
        joined += characters[static_cast<std::size_t>(i)];
    }
    spend(items.items.size() * kBytesPerStep);
    return value.list() != nullptr ? Value(std::move(items)) : text(std::move(joined));
  }

  Value compare_chain(const Expression& e) {
    Value left = evaluate(*e.operands[0]);
    for (std::size_t i = 0; i < e.ops.size(); ++i) {
      Value right = evaluate(*e.operands[i + 1]);
      if (!compare(e.ops[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  bool compare(const std::string& op, const Value& left, const Value& right) {
    if (op == "==") return equal(left, right, steps_);
    if (op == "!=") return !equal(left, right, steps_);
    if (op == "in") return contains(right, left);
    if (op == "not in") return !contains(right, left);
    refuse_undefined(left);
    refuse_undefined(right);
    double x = 0, y = 0;
    int order = 0;
    if (as_number(left, x) != nullptr && as_number(right, y) != nullptr)
      order = x < y ? -1 : x > y ? 1 : 0;
    else if (left.get<std::string>() != nullptr && right.get<std::string>() != nullptr)
      order = left.get<std::string>()->compare(*right.get<std::string>());
    else
      fail_here(fmt::format("{} and {} have no order", kind_of(left), kind_of(right)));
    return op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
  }

  bool contains(const Value& container, const Value& value) {
    if (container.is_undefined()) return false;
    if (const auto* string = container.get<std::string>()) {
      spend(string->size());
      return string->find(expect_string(value, "in")) != std::string::npos;
    }
    if (const List* list = container.list())
      return std::any_of(list->items.begin(), list->items.end(),
                         [&](const Value& item) { return equal(item, value, steps_); });
    const Dict* dict = container.dict();
    if (dict == nullptr)
      fail_here(fmt::format("in: expected a list, dict or string, found {}", kind_of(container)));
    const auto* key = value.get<std::string>();
    return key != nullptr && dict->find(*key) != nullptr;
  }

  Value binary(const std::string& op, const Value& left, const Value& right) {
    if (op == "~") return text(to_string(left) + to_string(right));
    refuse_undefined(left);
    refuse_undefined(right);
    const auto *a = left.get<std::string>(), *b = right.get<std::string>();
    if (op == "+" && a != nullptr && b != nullptr) return text(*a + *b);
    if (op == "+" && left.list() != nullptr && right.list() != nullptr) {
      List joined{items_of(left)};
      const std::vector<Value> more = items_of(right);
      joined.items.insert(joined.items.end(), more.begin(), more.end());
      return joined;
    }
    const auto *m = left.get<std::int64_t>(), *n = right.get<std::int64_t>();
    if (op == "*" && a != nullptr && n != nullptr) return repeat(*a, *n);
    if (m != nullptr && n != nullptr && op != "/") return integer(op, *m, *n);
    double x = 0, y = 0;
    if (as_number(left, x) == nullptr || as_number(right, y) == nullptr || op == "//" || op == "%")
      fail_here(fmt::format("{} {} {} is not supported", kind_of(left), op, kind_of(right)));
    if (op == "/" && y == 0) fail_here("division by zero");
    return op == "+" ? x + y : op == "-" ? x - y : op == "*" ? x * y : x / y;
  }

  Value repeat(const std::string& string, std::int64_t times) {
    if (times > 0 && string.size() > kLargestText / static_cast<std::uint64_t>(times))
      fail_here(fmt::format("a text is longer than {} bytes", kLargestText));
    std::string result;
    for (std::int64_t i = 0; i < times && !string.empty(); ++i) result += string;
    return text(std::move(result));
  }

  std::int64_t integer(const std::string& op, std::int64_t m, std::int64_t n) const {
    std::int64_t result = 0;
    bool overflow = false;
    if (op == "+") {
      overflow = __builtin_add_overflow(m, n, &result);
    } else if (op == "-") {
      overflow = __builtin_sub_overflow(m, n, &result);
    } else if (op == "*") {
      overflow = __builtin_mul_overflow(m, n, &result);
    } else {
      if (n == 0) fail_here("division by zero");
      overflow = n == -1 && m == std::numeric_limits<std::int64_t>::min();
      if (!overflow) {
        const std::int64_t remainder = m % n;
        const bool rounds_down = remainder != 0 && (remainder < 0) != (n < 0);  // as Python does
        result = op == "//" ? m / n - (rounds_down ? 1 : 0) : remainder + (rounds_down ? n : 0);
      }
    }
    if (overflow) fail_here("an integer does not fit in 64 bits");
    return result;
  }

  // Functions, methods, filters, tests

  const Value* argument(const Arguments& arguments, std::size_t i, std::string_view name = "") const {
    for (const auto& [key, value] : arguments.named)
      if (key == name) return &value;
    return i < arguments.positional.size() ? &arguments.positional[i] : nullptr;
  }
  /// Refuses more arguments than `most` and named ones other than `names`.
  void limit(const Arguments& arguments, std::string_view what, std::size_t most,
             std::initializer_list<std::string_view> names = {}) const {
    if (arguments.positional.size() > most) fail_here(fmt::format("{}: too many arguments", what));
    for (const auto& [name, value] : arguments.named)
      if (std::find(names.begin(), names.end(), name) == names.end())
        fail_here(fmt::format("{}: the argument {} is not supported", what, in_quotes(name)));
  }
  const std::string& string_argument(const Arguments& arguments, std::size_t i, std::string_view what) const {
    const Value* value = argument(arguments, i);
    if (value == nullptr) fail_here(fmt::format("{}: an argument is missing", what));
    return expect_string(*value, what);
  }

  Value call(const Value& callee, const Arguments& arguments) {
    refuse_undefined(callee);
    const auto* function = callee.get<Function>();
    if (function == nullptr) fail_here(fmt::format("{} cannot be called", kind_of(callee)));
    if (function->self != nullptr) {
      const auto* string = function->self->get<std::string>();
      return string != nullptr ? string_method(function->name, *string, arguments)
                               : dict_method(function->name, *function->self->dict(), arguments);
    }
    if (function->name == "raise_exception") {
      limit(arguments, function->name, 1);
      fail_here("the template refuses the messages: " +
                in_quotes(string_argument(arguments, 0, function->name)));
    }
    if (function->name == "namespace") {
      if (!arguments.positional.empty()) fail_here("namespace: expected named values");
      namespaces_.emplace_back();
      for (const auto& [name, value] : arguments.named) namespaces_.back().values.set(name, value);
      return &namespaces_.back();
    }
    return range(arguments);
  }

  Value range(const Arguments& arguments) {
    limit(arguments, "range", 3);
    std::vector<std::int64_t> bounds;
    for (const Value& value : arguments.positional) {
      const auto* bound = value.get<std::int64_t>();
      if (bound == nullptr || *bound > kLargestRange || *bound < -kLargestRange)
        fail_here(fmt::format("range: expected integers up to {}", kLargestRange));
      bounds.push_back(*bound);
    }
    if (bounds.empty()) fail_here("range: an argument is missing");
    if (bounds.size() == 1) bounds.insert(bounds.begin(), 0);
    if (bounds.size() == 2) bounds.push_back(1);
    if (bounds[2] == 0) fail_here("range: expected a step other than 0");
    List numbers;
    for (std::int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2])
      numbers.items.emplace_back(i);
    spend(numbers.items.size() * kBytesPerStep);
    return numbers;
  }

  Value string_method(const std::string& name, const std::string& self, const Arguments& arguments) {
    limit(arguments, name, 2);
    if (name == "strip" || name == "lstrip" || name == "rstrip")
      return text(strip(self, argument(arguments, 0), name != "rstrip", name != "lstrip"));
    if (name == "startswith") return self.starts_with(string_argument(arguments, 0, name));
    if (name == "endswith") return self.ends_with(string_argument(arguments, 0, name));
    if (name == "upper" || name == "lower") return text(change_case(self, name == "upper"));
    if (name == "replace")
      return replace(self, string_argument(arguments, 0, name), string_argument(arguments, 1, name));
    return split(self, arguments);
  }

  Value split(const std::string& self, const Arguments& arguments) {
    const std::string& separator = string_argument(arguments, 0, "split");
    std::int64_t most = std::numeric_limits<std::int64_t>::max();
    if (const Value* limit = argument(arguments, 1)) {
      const auto* count = limit->get<std::int64_t>();
      if (count == nullptr) fail_here("split: expected an integer");
      if (*count >= 0) most = *count;
    }
    if (separator.empty()) fail_here("split: expected a separator that is not empty");
    List parts;
    std::size_t begin = 0, at = self.find(separator);
    for (; at != std::string::npos && most > 0; --most) {
      parts.items.push_back(text(self.substr(begin, at - begin)));
      begin = at + separator.size();
      at = self.find(separator, begin);
    }
    parts.items.push_back(text(self.substr(begin)));
    return parts;
  }

  Value replace(const std::string& self, const std::string& from, const std::string& to) {
    if (from.empty()) fail_here("replace: expected a text that is not empty");
    std::string result;
    std::size_t begin = 0;
    for (std::size_t at = self.find(from); at != std::string::npos; at = self.find(from, begin)) {
      result.append(self, begin, at - begin).append(to);
      begin = at + from.size();
      if (result.size() > kLargestText) break;
    }
    return text(result.append(self, begin));
  }

  Value dict_method(const std::string& name, const Dict& self, const Arguments& arguments) {
    limit(arguments, name, name == "get" ? 2 : 0);
    if (name == "get") {
      const Value* found = self.find(string_argument(arguments, 0, name));
      const Value* fallback = argument(arguments, 1);
      return found != nullptr ? *found : fallback != nullptr ? *fallback : Value();
    }
    List list;
    for (const auto& [key, value] : self.items) {
      if (name == "items")
        list.items.push_back(List{{key, value}});
      else
        list.items.push_back(name == "keys" ? Value(key) : value);
    }
    spend(list.items.size() * kBytesPerStep);
    return list;
  }

  Value filter(const std::string& name, const Value& value, const Arguments& arguments) {
    if (name == "default" || name == "d") {
      limit(arguments, name, 2, {"default_value", "boolean"});
      const Value* fallback = argument(arguments, 0, "default_value");
      const Value* boolean = argument(arguments, 1, "boolean");
      const bool replaces =
          value.is_undefined() || (boolean != nullptr && is_true(*boolean) && !is_true(value));
      return !replaces ? value : fallback != nullptr ? *fallback : Value("");
    }
    if (name == "tojson") {
      limit(arguments, name, 0, {"indent", "ensure_ascii"});
      const Value *indent = argument(arguments, 0, "indent"), *ascii = argument(arguments, 0, "ensure_ascii");
      if (ascii != nullptr && is_true(*ascii)) fail_here("tojson: ensure_ascii is not supported");
      const std::int64_t* width = indent != nullptr ? indent->get<std::int64_t>() : nullptr;
      if (indent != nullptr && !indent->is_none() && (width == nullptr || *width < 0 || *width > 16))
        fail_here("tojson: indent: expected an integer from 0 to 16");
      return text(to_json(value, width != nullptr ? static_cast<int>(*width) : -1, steps_));
    }
    if (name == "join") {
      limit(arguments, name, 1);
      std::string joined;
      const std::string separator =
          argument(arguments, 0) != nullptr ? string_argument(arguments, 0, name) : "";
      const std::vector<Value> items = items_of(value);
      for (std::size_t i = 0; i < items.size(); ++i) {
        if (i > 0) joined += separator;
        joined += to_string(items[i]);
        if (joined.size() > kLargestText) break;
      }
      return text(std::move(joined));
    }
    if (name == "replace") {
      limit(arguments, name, 2);
      return replace(to_string(value), string_argument(arguments, 0, name),
                     string_argument(arguments, 1, name));
    }
    if (name == "trim") {
      limit(arguments, name, 1);
      return text(strip(to_string(value), argument(arguments, 0), true, true));
    }
    if (name == "selectattr" || name == "rejectattr") return select(name == "selectattr", value, arguments);
    return plain_filter(name, value, arguments);
  }

  /// Filters without arguments.
  Value plain_filter(const std::string& name, const Value& value, const Arguments& arguments) {
    if (name == "length" || name == "count") {
      limit(arguments, name, 0);
      if (const auto* string = value.get<std::string>()) return count_characters(*string);
      if (const List* list = value.list()) return static_cast<std::int64_t>(list->items.size());
      if (const Dict* dict = value.dict()) return static_cast<std::int64_t>(dict->items.size());
      if (value.is_undefined()) return std::int64_t{0};
      fail_here(fmt::format("length: expected a list, dict or string, found {}", kind_of(value)));
    }
    if (name == "upper" || name == "lower") {
      limit(arguments, name, 0);
      return text(change_case(to_string(value), name == "upper"));
    }
    if (name == "string" || name == "safe") {
      limit(arguments, name, 0);
      return text(to_string(value));
    }
    if (name == "list") {
      limit(arguments, name, 0);
      return List{items_of(value)};
    }
    if (name == "first" || name == "last") {
      limit(arguments, name, 0);
      const std::vector<Value> items = items_of(value);
      if (items.empty()) return Undefined{name};
      return name == "first" ? items.front() : items.back();
    }
    if (name == "items") {
      const Dict* dict = value.dict();
      if (dict == nullptr) fail_here(fmt::format("items: expected a dict, found {}", kind_of(value)));
      return dict_method(name, *dict, arguments);
    }
    fail_here(fmt::format("the filter {} is not supported", in_quotes(name)));
  }

  Value select(bool keep, const Value& value, const Arguments& arguments) {
    const std::string what = keep ? "selectattr" : "rejectattr";
    limit(arguments, what, 3);
    const std::string& name = string_argument(arguments, 0, what);
    List chosen;
    for (const Value& item : items_of(value)) {
      const Value field = attribute(item, name);
      const bool holds = arguments.positional.size() < 2
                             ? is_true(field)
                             : test(string_argument(arguments, 1, what), field,
                                    {arguments.positional.begin() + 2, arguments.positional.end()});
      if (holds == keep) chosen.items.push_back(item);
    }
    return chosen;
  }

  bool test(const std::string& name, const Value& value, const std::vector<Value>& operands) {
    const auto among = [&](std::initializer_list<std::string_view> names) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    const bool has_operand = among({"equalto", "eq", "==", "ne", "!=", "in"});
    if (!has_operand && !among({"defined", "undefined", "none", "string", "mapping", "iterable", "sequence",
                                "boolean", "true", "false", "integer", "number", "odd", "even"}))
      fail_here(fmt::format("the test {} is not supported", in_quotes(name)));
    if (operands.size() != (has_operand ? 1 : 0))
      fail_here(fmt::format("the test {}: expected {} operand", in_quotes(name), has_operand ? "one" : "no"));
    if (among({"equalto", "eq", "=="})) return equal(value, operands[0], steps_);
    if (among({"ne", "!="})) return !equal(value, operands[0], steps_);
    if (name == "in") return contains(operands[0], value);
    if (name == "defined") return !value.is_undefined();
    if (name == "undefined") return value.is_undefined();
    if (name == "none") return value.is_none();
    const bool is_string = value.get<std::string>() != nullptr;
    if (name == "string") return is_string;
    const bool is_dict = value.dict() != nullptr && value.get<Namespace*>() == nullptr;
    if (name == "mapping") return is_dict;
    if (among({"iterable", "sequence"}))
      return is_string || is_dict || value.list() != nullptr || value.is_undefined();
    const bool* flag = value.get<bool>();
    if (name == "boolean") return flag != nullptr;
    if (name == "true") return flag != nullptr && *flag;
    if (name == "false") return flag != nullptr && !*flag;
    const auto* integer = value.get<std::int64_t>();
    if (name == "integer") return integer != nullptr;
    if (name == "number") return integer != nullptr || flag != nullptr || value.get<double>() != nullptr;
    if (integer == nullptr)
      fail_here(fmt::format("is {}: expected an integer, found {}", name, kind_of(value)));
    return (*integer % 2 != 0) == (name == "odd");
  }

  Scopes scopes_;
  std::deque<Namespace> namespaces_;
  std::string output_;
  std::int64_t steps_;
  int line_ = 1;
};

}  // namespace
}  // namespace chat

std::string render_chat_template(std::string_view chat_template, const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, std::string_view bos_token,
                                 std::string_view eos_token) {
  using namespace chat;
  SEER_CHECK(chat_template.size() <= kLargestTemplate, "chat_template: expected at most {} bytes, found {}",
             kLargestTemplate, chat_template.size());
  if (const auto bad = find_invalid_utf8(chat_template))
    fail("chat_template: invalid UTF-8 at byte {}", *bad);
  const Block block = parse_template(chat_template);

  List list;
  std::size_t bytes = 0;
  for (const ChatMessage& message : messages) {
    for (const std::string_view text : {std::string_view(message.role), std::string_view(message.content)})
      if (const auto bad = find_invalid_utf8(text)) fail("message: invalid UTF-8 at byte {}", *bad);
    Dict dict;
    dict.set("role", message.role);
    dict.set("content", message.content);
    list.items.push_back(std::move(dict));
    bytes += message.content.size();
  }
  Interpreter interpreter(kMostSteps + kStepsPerMessage * static_cast<std::int64_t>(messages.size()) +
                          static_cast<std::int64_t>(bytes));
  interpreter.define("messages", std::move(list));
  interpreter.define("add_generation_prompt", add_generation_prompt);
  interpreter.define("bos_token", std::string(bos_token));
  interpreter.define("eos_token", std::string(eos_token));
  interpreter.define("tools", Value());
  interpreter.define("documents", Value());
  return interpreter.run(block);
}

}  // namespace seer
