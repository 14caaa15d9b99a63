// Opcodes: Python's Lib/pickletools.py. The layout of tensors: torch/_utils.py and torch/serialization.py.
#include "io/pickle.h"

#include <cstring>
#include <deque>
#include <initializer_list>
#include <limits>
#include <optional>
#include <set>
#include <unordered_map>
#include <variant>

#include "core/check.h"
#include "io/message.h"

namespace seer {
namespace {

constexpr std::size_t kLargestPickle = std::size_t{64} << 20;
constexpr std::size_t kMostValues = 1'000'000;  // a tensor takes about 20
constexpr int kDeepestDict = 4;

struct StorageClass {
  const char* name;
  DType dtype;
};
constexpr StorageClass kStorageClasses[] = {
    {"torch BFloat16Storage", DType::kBF16}, {"torch HalfStorage", DType::kF16},
    {"torch FloatStorage", DType::kF32},     {"torch DoubleStorage", DType::kF64},
    {"torch LongStorage", DType::kI64},      {"torch IntStorage", DType::kI32},
    {"torch ShortStorage", DType::kI16},     {"torch CharStorage", DType::kI8},
    {"torch ByteStorage", DType::kU8},       {"torch BoolStorage", DType::kBool}};
constexpr const char* kOrderedDict = "collections OrderedDict";
constexpr const char* kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr const char* kRebuildParameter = "torch._utils _rebuild_parameter";

std::optional<DType> storage_dtype(std::string_view global) {
  for (const StorageClass& storage : kStorageClasses)
    if (global == storage.name) return storage.dtype;
  return std::nullopt;
}

bool is_known_global(std::string_view global) {
  return global == kOrderedDict || global == kRebuildTensor || global == kRebuildParameter ||
         storage_dtype(global).has_value();
}

enum Opcode : unsigned char {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kEmptyList = ']',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kEmptyTuple = ')',
  kSetItems = 'u',
  kEmptyDict = '}',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

std::string opcode_name(unsigned char opcode) {
  switch (opcode) {  // those that would run code
    case 'i':
      return "INST";
    case 'o':
      return "OBJ";
    case 'P':
      return "PERSID";
    case 0x81:
      return "NEWOBJ";
    case 0x82:
    case 0x83:
    case 0x84:
      return "EXT";
    case 0x92:
      return "NEWOBJ_EX";
    default:
      return fmt::format("0x{:02x}", opcode);
  }
}

struct Value;
using Ref = Value*;  // values live in the machine's arena: pickles can make cycles

struct None {};
struct Global {
  std::string name;  // "module name"
};
struct Tuple {
  std::vector<Ref> items;
};
struct List {
  std::vector<Ref> items;
};
struct Dict {
  std::vector<std::pair<Ref, Ref>> items;
};
struct Storage {
  std::string key;
  DType dtype;
  std::int64_t size;
};

struct Value {
  std::variant<None, bool, std::int64_t, double, std::string, Global, Tuple, List, Dict, Storage,
               PickledTensor>
      of;
};

class Machine {
 public:
  Machine(std::string_view pickle, const std::string& label) : pickle_(pickle), label_(label) {
    SEER_CHECK(pickle.size() <= kLargestPickle, "{}: pickle: expected at most {} bytes, found {}", label,
               kLargestPickle, pickle.size());
  }

  const Value& run() {
    for (;;) {
      start_ = at_;
      const auto opcode = read<unsigned char>();
      if (opcode == kStop) return *pop();
      step(opcode);
    }
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: pickle at byte {}: {}", label_, start_, fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view take(std::uint64_t size) {
    if (size > pickle_.size() - at_) refuse("expected {} more bytes, found {}", size, pickle_.size() - at_);
    const std::string_view bytes = pickle_.substr(at_, size);
    at_ += size;
    return bytes;
  }
  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view read_line() {
    const std::size_t end = pickle_.find('\n', at_);
    if (end == std::string_view::npos) refuse("expected a line, found the end");
    const std::string_view line = take(end - at_);
    take(1);
    return line;
  }

  template <class T>
  void push(T value) {
    if (values_.size() == kMostValues) refuse("expected at most {} values, found more", kMostValues);
    values_.push_back({std::move(value)});
    stack_.push_back(&values_.back());
  }
  Ref pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) refuse("expected a value on the stack");
    const Ref value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Ref top() {
    const Ref value = pop();
    stack_.push_back(value);
    return value;
  }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) refuse("expected a mark on the stack");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  template <class T>
  T& as(Ref value, const char* what) const {
    T* typed = std::get_if<T>(&value->of);
    if (typed == nullptr) refuse("expected {}", what);
    return *typed;
  }

  void push_tuple(std::size_t size) {
    Tuple tuple;
    for (std::size_t i = 0; i < size; ++i) tuple.items.insert(tuple.items.begin(), pop());
    push(std::move(tuple));
  }
  void get(std::uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) refuse("memo {} is empty", key);
    stack_.push_back(found->second);
  }
  void push_global(std::string name) {
    if (!is_known_global(name))
      refuse("global {} is refused: only tensors are read, nothing is run", in_quotes(name));
    push(Global{std::move(name)});
  }
  void set_items(Ref target, const std::vector<Ref>& items) {
    if (items.size() % 2 != 0) refuse("expected keys and values in pairs");
    Dict& dict = as<Dict>(target, "a dict");
    for (std::size_t i = 0; i < items.size(); i += 2) dict.items.emplace_back(items[i], items[i + 1]);
  }

  void push_long(std::string_view bytes) {
    if (bytes.size() > sizeof(std::int64_t))
      refuse("expected an integer of 64 bits, found {} bytes", bytes.size());
    std::int64_t value = !bytes.empty() && (bytes.back() & 0x80) != 0 ? -1 : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    push(value);
  }

  std::vector<std::int64_t> sizes(Ref value) const {
    std::vector<std::int64_t> numbers;
    for (const Ref item : as<Tuple>(value, "a tuple of sizes or strides").items) {
      numbers.push_back(as<std::int64_t>(item, "integers as sizes and strides"));
      if (numbers.back() < 0) refuse("expected sizes and strides of 0 or more, found {}", numbers.back());
    }
    return numbers;
  }

  void push_storage() {
    const std::vector<Ref>& id = as<Tuple>(pop(), "a tuple as persistent id").items;
    if (id.size() != 5 || as<std::string>(id[0], "a string") != "storage")
      refuse("expected a persistent id ('storage', class, key, location, size)");
    const std::string& name = as<Global>(id[1], "a storage class").name;
    const auto dtype = storage_dtype(name);
    if (!dtype) refuse("expected a storage class, found {}", in_quotes(name));
    const std::int64_t size = as<std::int64_t>(id[4], "an integer as a storage's size");
    if (size < 0) refuse("expected a storage's size of 0 or more, found {}", size);
    push(Storage{as<std::string>(id[2], "a string as a storage's key"), *dtype, size});
  }

  void reduce() {
    const std::vector<Ref>& args = as<Tuple>(pop(), "a tuple of arguments").items;
    const std::string& name = as<Global>(pop(), "a global to call").name;
    if (name == kOrderedDict) {
      if (!args.empty()) refuse("expected OrderedDict without arguments, found {}", args.size());
      push(Dict{});
    } else if (name == kRebuildTensor) {
      if (args.size() < 4 || args.size() > 7)
        refuse("expected 6 arguments of _rebuild_tensor_v2, found {}", args.size());
      const Storage& storage = as<Storage>(args[0], "a storage");
      PickledTensor tensor{storage.key,    storage.dtype,
                           storage.size,   as<std::int64_t>(args[1], "an integer as a tensor's offset"),
                           sizes(args[2]), sizes(args[3])};
      if (tensor.offset < 0) refuse("expected an offset of 0 or more, found {}", tensor.offset);
      if (tensor.shape.size() != tensor.strides.size())
        refuse("expected as many strides as sizes, found {} and {}", tensor.strides.size(),
               tensor.shape.size());
      push(std::move(tensor));
    } else if (name == kRebuildParameter) {
      if (args.empty()) refuse("expected arguments of _rebuild_parameter");
      push(as<PickledTensor>(args[0], "a tensor as a parameter's data"));
    } else {
      refuse("{} cannot be called", in_quotes(name));
    }
  }

  void step(unsigned char opcode) {
    switch (opcode) {
      case kProto: {
        const auto version = read<unsigned char>();
        if (version < 2 || version > 5) refuse("expected protocol 2 to 5, found {}", version);
        return;
      }
      case kFrame:
        read<std::uint64_t>();
        return;
      case kMark:
        marks_.push_back(stack_.size());
        return;
      case kPop:
        pop();
        return;
      case kPopMark:
        pop_to_mark();
        return;
      case kNone:
        return push(None{});
      case kNewTrue:
        return push(true);
      case kNewFalse:
        return push(false);
      case kBinInt:
        return push(std::int64_t{read<std::int32_t>()});
      case kBinInt1:
        return push(std::int64_t{read<std::uint8_t>()});
      case kBinInt2:
        return push(std::int64_t{read<std::uint16_t>()});
      case kLong1:
        return push_long(take(read<std::uint8_t>()));
      case kBinFloat:
        take(sizeof(double));  // big-endian; a scalar beside the tensors
        return push(0.0);
      case kBinUnicode:
        return push(std::string(take(read<std::uint32_t>())));
      case kShortBinUnicode:
        return push(std::string(take(read<std::uint8_t>())));
      case kEmptyTuple:
        return push(Tuple{});
      case kTuple:
        return push(Tuple{pop_to_mark()});
      case kTuple1:
        return push_tuple(1);
      case kTuple2:
        return push_tuple(2);
      case kTuple3:
        return push_tuple(3);
      case kEmptyList:
        return push(List{});
      case kAppend: {
        const Ref item = pop();
        as<List>(top(), "a list").items.push_back(item);
        return;
      }
      case kAppends: {
        const std::vector<Ref> items = pop_to_mark();
        List& list = as<List>(top(), "a list");
        list.items.insert(list.items.end(), items.begin(), items.end());
        return;
      }
      case kEmptyDict:
        return push(Dict{});
      case kSetItem: {
        const Ref value = pop(), key = pop();
        return set_items(top(), {key, value});
      }
      case kSetItems: {
        const std::vector<Ref> items = pop_to_mark();
        return set_items(top(), items);
      }
      case kBinPut:
        memo_[read<std::uint8_t>()] = top();
        return;
      case kLongBinPut:
        memo_[read<std::uint32_t>()] = top();
        return;
      case kMemoize:
        memo_[static_cast<std::uint32_t>(memo_.size())] = top();
        return;
      case kBinGet:
        return get(read<std::uint8_t>());
      case kLongBinGet:
        return get(read<std::uint32_t>());
      case kGlobal: {
        const std::string module(read_line());
        return push_global(module + ' ' + std::string(read_line()));
      }
      case kStackGlobal: {
        const std::string& name = as<std::string>(pop(), "a string as a global's name");
        return push_global(as<std::string>(pop(), "a string as a global's module") + ' ' + name);
      }
      case kBinPersId:
        return push_storage();
      case kReduce:
        return reduce();
      case kBuild:  // an OrderedDict's attributes, such as _metadata
        pop();
        as<Dict>(top(), "a dict to set attributes of");
        return;
      default:
        refuse("opcode {} is refused: only tensors are read, nothing is run", opcode_name(opcode));
    }
  }

  std::string_view pickle_;
  const std::string& label_;
  std::size_t at_ = 0, start_ = 0;
  std::deque<Value> values_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;  // sizes of the stack
  std::unordered_map<std::uint32_t, Ref> memo_;
};

/// The dict whose values are tensors: this one, or the only dict inside it.
const Dict& find_tensors(const Value& root, const std::string& label) {
  const Dict* dict = std::get_if<Dict>(&root.of);
  for (int depth = 0; depth < kDeepestDict && dict != nullptr; ++depth) {
    std::vector<const Dict*> inner;
    std::size_t tensors = 0;
    for (const auto& [key, value] : dict->items) {
      tensors += std::holds_alternative<PickledTensor>(value->of);
      if (const Dict* nested = std::get_if<Dict>(&value->of)) inner.push_back(nested);
    }
    if (tensors > 0 || inner.empty()) return *dict;
    dict = inner.size() == 1 ? inner[0] : nullptr;
  }
  fail("{}: expected a dict of tensors, or one such dict under a key", label);
}

/// Writes the opcodes of a pickle.
class Writer {
 public:
  void op(unsigned char opcode) { text_ += static_cast<char>(opcode); }
  void global(std::string_view name) {
    op(kGlobal);
    text_ += name;
    text_[text_.size() - name.size() + name.find(' ')] = '\n';
    text_ += '\n';
  }
  void string(std::string_view value) {
    op(kBinUnicode);
    raw(static_cast<std::uint32_t>(value.size()));
    text_ += value;
  }
  void integer(std::int64_t value) {
    if (value <= std::numeric_limits<std::int32_t>::max()) {
      op(kBinInt);
      raw(static_cast<std::int32_t>(value));
    } else {
      op(kLong1);
      raw(std::uint8_t{8});
      raw(value);
    }
  }
  void integers(const std::vector<std::int64_t>& values) {
    op(kMark);
    for (const std::int64_t value : values) integer(value);
    op(kTuple);
  }
  void ordered_dict() {
    global(kOrderedDict);
    op(kEmptyTuple);
    op(kReduce);
  }
  std::string take() { return std::move(text_); }

 private:
  template <class T>
  void raw(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  std::string text_;
};

}  // namespace

std::vector<std::pair<std::string, PickledTensor>> read_pickled_tensors(std::string_view pickle,
                                                                        const std::string& label) {
  Machine machine(pickle, label);
  std::vector<std::pair<std::string, PickledTensor>> tensors;
  std::set<std::string_view> names;
  for (const auto& [key, value] : find_tensors(machine.run(), label).items) {
    const auto* name = std::get_if<std::string>(&key->of);
    SEER_CHECK(name != nullptr, "{}: expected strings as names of tensors", label);
    const auto* tensor = std::get_if<PickledTensor>(&value->of);
    SEER_CHECK(tensor != nullptr, "{}: {}: expected a tensor, found another value", label, in_quotes(*name));
    SEER_CHECK(names.insert(*name).second, "{}: tensor {} occurs twice", label, in_quotes(*name));
    tensors.emplace_back(*name, *tensor);
  }
  return tensors;
}

std::string pickle_tensors(const std::vector<std::pair<std::string, PickledTensor>>& tensors) {
  Writer out;
  out.op(kProto);
  out.op(2);
  out.ordered_dict();
  out.op(kMark);
  for (const auto& [name, tensor] : tensors) {
    out.string(name);
    out.global(kRebuildTensor);
    out.op(kMark);
    out.op(kMark);
    out.string("storage");
    for (const StorageClass& storage : kStorageClasses)
      if (storage.dtype == tensor.dtype) out.global(storage.name);
    out.string(tensor.storage_key);
    out.string("cpu");
    out.integer(tensor.storage_size);
    out.op(kTuple);
    out.op(kBinPersId);
    out.integer(tensor.offset);
    out.integers(tensor.shape);
    out.integers(tensor.strides);
    out.op(kNewFalse);   // requires_grad
    out.ordered_dict();  // backward hooks
    out.op(kTuple);
    out.op(kReduce);
  }
  out.op(kSetItems);
  out.op(kStop);
  return out.take();
}

}  // namespace seer
