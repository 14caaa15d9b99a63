#include "io/template_value.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "io/message.h"
#include "io/utf8.h"

namespace seer::chat {
namespace {

constexpr int kDeepest = 64;

int checked_depth(int depth) {
  SEER_CHECK(depth <= kDeepest, "chat_template: lists and dicts are nested deeper than {} levels", kDeepest);
  return depth;
}

std::string show_number(double x) {
  SEER_CHECK(std::isfinite(x), "chat_template: a number that is not finite");
  std::string text = fmt::format("{}", x);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

void spend(std::int64_t& steps) { SEER_CHECK(--steps > 0, "chat_template: takes too many steps"); }

void append_json_string(std::string_view text, std::string& json) {
  json += '"';
  for (const char c : text) {
    const std::size_t escaped = std::string_view("\"\\\n\r\t\b\f").find(c);
    if (escaped != std::string_view::npos)
      (json += '\\') += "\"\\nrtbf"[escaped];
    else if (static_cast<unsigned char>(c) < 0x20)
      json += fmt::format("\\u{:04x}", c);
    else
      json += c;
  }
  json += '"';
}

struct JsonWriter {
  int indent;
  std::int64_t& steps;
  std::string json;

  void new_line(int level) {
    if (indent >= 0) (json += '\n').append(static_cast<std::size_t>(indent * level), ' ');
  }
  template <class Items, class Write>
  void sequence(const Items& items, const char* brackets, int level, Write&& write) {
    json += brackets[0];
    bool is_first = true;
    for (const auto& item : items) {
      if (!is_first) json += indent >= 0 ? "," : ", ";
      is_first = false;
      new_line(level + 1);
      write(item);
    }
    if (!is_first) new_line(level);
    json += brackets[1];
  }
  void write(const Value& value, int level) {
    spend(steps);
    if (const auto* text = value.get<std::string>()) {
      append_json_string(*text, json);
    } else if (const List* list = value.list()) {
      sequence(list->items, "[]", level, [&](const Value& item) { write(item, level + 1); });
    } else if (const Dict* dict = value.dict(); dict != nullptr && value.get<Namespace*>() == nullptr) {
      sequence(dict->items, "{}", level, [&](const std::pair<std::string, Value>& item) {
        append_json_string(item.first, json);
        json += ": ";
        write(item.second, level + 1);
      });
    } else if (value.is_none()) {
      json += "null";
    } else if (const bool* flag = value.get<bool>()) {
      json += *flag ? "true" : "false";
    } else if (value.get<std::int64_t>() != nullptr || value.get<double>() != nullptr) {
      json += to_string(value);
    } else {
      fail("chat_template: tojson: {} has no JSON form", kind_of(value));
    }
  }
};

}  // namespace

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items)
    if (name == key) return &value;
  return nullptr;
}

void Dict::set(std::string_view key, Value value) {
  depth = std::max(depth, checked_depth(value.depth() + 1));
  for (auto& [name, old] : items)
    if (name == key) {
      old = std::move(value);
      return;
    }
  items.emplace_back(key, std::move(value));
}

Value::Value(List list) {
  for (const Value& item : list.items) list.depth = std::max(list.depth, item.depth());
  list.depth = checked_depth(list.depth + 1);
  of_ = std::make_shared<const List>(std::move(list));
}

Value::Value(Dict dict) {
  dict.depth = std::max(dict.depth, 1);
  of_ = std::make_shared<const Dict>(std::move(dict));
}

const List* Value::list() const {
  const auto* pointer = get<std::shared_ptr<const List>>();
  return pointer != nullptr ? pointer->get() : nullptr;
}

const Dict* Value::dict() const {
  if (const auto* space = get<Namespace*>()) return &(*space)->values;
  const auto* pointer = get<std::shared_ptr<const Dict>>();
  return pointer != nullptr ? pointer->get() : nullptr;
}

int Value::depth() const {
  if (const List* values = list()) return values->depth;
  if (get<Namespace*>() != nullptr) return 1;
  if (const Dict* values = dict()) return values->depth;
  const auto* function = get<Function>();
  return function != nullptr && function->self != nullptr ? function->self->depth() + 1 : 0;
}

const char* kind_of(const Value& value) {
  if (value.get<std::string>() != nullptr) return "a string";
  if (value.list() != nullptr) return "a list";
  if (value.get<Namespace*>() != nullptr) return "a namespace";
  if (value.dict() != nullptr) return "a dict";
  if (value.is_none()) return "none";
  if (value.is_undefined()) return "an undefined value";
  if (value.get<Function>() != nullptr) return "a function";
  return value.get<bool>() != nullptr ? "a boolean" : "a number";
}

bool is_true(const Value& value) {
  double number = 0;
  if (as_number(value, number) != nullptr) return number != 0;
  if (const auto* text = value.get<std::string>()) return !text->empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (value.get<Namespace*>() != nullptr || value.get<Function>() != nullptr) return true;
  const Dict* dict = value.dict();
  return dict != nullptr && !dict->items.empty();
}

const double* as_number(const Value& value, double& storage) {
  if (const bool* flag = value.get<bool>())
    storage = *flag ? 1 : 0;
  else if (const auto* integer = value.get<std::int64_t>())
    storage = static_cast<double>(*integer);
  else if (const auto* real = value.get<double>())
    storage = *real;
  else
    return nullptr;
  return &storage;
}

bool equal(const Value& a, const Value& b, std::int64_t& steps) {
  spend(steps);
  double x = 0, y = 0;
  if (as_number(a, x) != nullptr) return as_number(b, y) != nullptr && x == y;
  if (const auto* text = a.get<std::string>()) {
    const auto* other = b.get<std::string>();
    return other != nullptr && *text == *other;
  }
  if (const List* list = a.list()) {
    const List* other = b.list();
    if (other == nullptr || list->items.size() != other->items.size()) return false;
    for (std::size_t i = 0; i < list->items.size(); ++i)
      if (!equal(list->items[i], other->items[i], steps)) return false;
    return true;
  }
  if (a.get<Namespace*>() != nullptr || b.get<Namespace*>() != nullptr)
    return a.get<Namespace*>() != nullptr && b.get<Namespace*>() != nullptr && a.dict() == b.dict();
  if (const Dict* dict = a.dict()) {
    const Dict* other = b.dict();
    if (other == nullptr || dict->items.size() != other->items.size()) return false;
    for (const auto& [key, value] : dict->items) {
      const Value* found = other->find(key);
      if (found == nullptr || !equal(value, *found, steps)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::string to_string(const Value& value) {
  if (const auto* text = value.get<std::string>()) return *text;
  if (const auto* flag = value.get<bool>()) return *flag ? "True" : "False";
  if (const auto* integer = value.get<std::int64_t>()) return std::to_string(*integer);
  if (const auto* real = value.get<double>()) return show_number(*real);
  if (value.is_none()) return "None";
  if (value.is_undefined()) return "";
  fail("chat_template: printing {} is not supported", kind_of(value));
}

std::string to_json(const Value& value, int indent, std::int64_t& steps) {
  JsonWriter writer{indent, steps, {}};
  writer.write(value, 0);
  return std::move(writer.json);
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_step(text.substr(i)).length;
    characters.push_back(text.substr(i, length));
    i += length;
  }
  return characters;
}

std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

std::string strip(std::string_view text, const Value* characters, bool left, bool right) {
  const std::string* set = nullptr;
  if (characters != nullptr && !characters->is_none()) {
    set = characters->get<std::string>();
    SEER_CHECK(set != nullptr, "chat_template: strip: expected a string of characters, found {}",
               kind_of(*characters));
  }
  const auto goes = [&](std::string_view character) {
    if (set != nullptr) return set->find(character) != std::string::npos;
    const char32_t c = first_character(character);
    return is_white_space(c) || (c >= 0x1c && c <= 0x1f);  // Python counts these separators too
  };
  while (left && !text.empty()) {
    const std::size_t length = utf8_step(text).length;
    if (!goes(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    std::size_t begin = text.size() - 1;
    while ((text[begin] & 0xc0) == 0x80) --begin;
    if (!goes(text.substr(begin))) break;
    text.remove_suffix(text.size() - begin);
  }
  return std::string(text);
}

std::string change_case(std::string_view text, bool upper) {
  std::string result;
  for (const std::string_view character : characters_of(text)) {
    const auto c = static_cast<utf8proc_int32_t>(first_character(character));
    utf8proc_uint8_t bytes[4];
    const auto size = utf8proc_encode_char(upper ? utf8proc_toupper(c) : utf8proc_tolower(c), bytes);
    result.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
  }
  return result;
}

}  // namespace seer::chat
