// tokenizer.json and tokenizer_config.json as the `tokenizers` and `transformers` libraries write them.
#include <algorithm>
#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"
#include "io/byte_alphabet.h"
#include "io/message.h"
#include "io/tokenizer_parts.h"
#include "io/utf8.h"

namespace seer {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kLargestId = (1 << 22) - 1;  // bounds the memory that a file can ask for

/// What GPT-2 splits by, and ByteLevel where it says use_regex.
constexpr const char* kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// One JSON value and where it stands, for messages.
class Node {
 public:
  Node(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  const Json& json() const { return json_; }
  bool is_null() const { return json_.is_null(); }

  bool has(const char* name) const {
    const auto found = object().find(name);
    return found != json_.end() && !found->is_null();
  }
  Node operator[](const char* name) const {
    const auto found = object().find(name);
    SEER_CHECK(found != json_.end(), "{}: field {} is missing", where_, name);
    return Node(*found, where_ + ": " + name);
  }
  const Json& object() const { return expect(json_.is_object(), "an object"); }
  const Json& array() const { return expect(json_.is_array(), "an array"); }
  const std::string& string() const {
    expect(json_.is_string(), "a string");
    return json_.get_ref<const std::string&>();
  }
  bool boolean() const { return expect(json_.is_boolean(), "true or false").get<bool>(); }
  bool boolean_or(const char* name, bool fallback) const {
    return has(name) ? (*this)[name].boolean() : fallback;
  }
  std::int32_t id() const {
    SEER_CHECK(json_.is_number_unsigned() && json_.get<std::uint64_t>() <= kLargestId,
               "{}: expected an id from 0 to {}, found {}", where_, kLargestId,
               json_.is_number() ? json_.dump() : json_.type_name());
    return json_.get<std::int32_t>();
  }
  std::vector<Node> items() const {
    std::vector<Node> nodes;
    std::size_t index = 0;
    for (const Json& item : array()) nodes.emplace_back(item, fmt::format("{}[{}]", where_, index++));
    return nodes;
  }
  [[noreturn]] void refuse_type(const char* known) const {
    fail("{}: type: expected {}, found {}", where_, known, in_quotes((*this)["type"].string()));
  }

 private:
  const Json& expect(bool holds, const char* what) const {
    SEER_CHECK(holds, "{}: expected {}, found {}", where_, what, json_.type_name());
    return json_;
  }

  const Json& json_;
  std::string where_;
};

Json parse_json(std::string_view text, const std::string& label) {
  check_json_depth(text, label);
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  SEER_CHECK(json.is_object(), "{}: expected a JSON object, found {}", label,
             json.is_discarded() ? "invalid JSON" : json.type_name());
  return json;
}

/// Fields that change the result and must not be set.
void refuse_set(const Node& node, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (!node.has(name)) continue;
    const Json& value = node[name].json();
    const bool unset = value == Json(false) || value == Json("") || (value.is_number() && value == Json(0));
    SEER_CHECK(unset, "{}: {}: expected nothing, found {}", node.where(), name,
               in_quotes(value.is_structured() ? value.type_name() : value.dump()));
  }
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& label)
      : json_(parse_json(text, label)), root_(json_, label) {
    parts_.label = label;
  }

  TokenizerParts read() {
    read_model(root_["model"]);
    if (root_.has("normalizer")) read_normalizer(root_["normalizer"]);
    if (root_.has("added_tokens"))
      for (const Node& token : root_["added_tokens"].items()) read_added_token(token);
    read_pre_tokenizer(root_["pre_tokenizer"]);
    SEER_CHECK(byte_level_, "{}: pre_tokenizer: expected a ByteLevel step, found none", root_.where());
    read_decoder(root_["decoder"]);
    if (root_.has("post_processor")) read_post_processor(root_["post_processor"]);
    // Truncation and padding are left to the callers, as `transformers` does.
    return std::move(parts_);
  }

 private:
  void name_token(const std::string& name, std::int32_t id, bool special) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= parts_.tokens.size()) parts_.tokens.resize(index + 1);
    parts_.id_of_token[name] = id;
    parts_.tokens[index] = {true, special, bytes_of_token(name).value_or(name)};
  }

  void read_model(const Node& model) {
    if (model.has("type") && model["type"].string() != "BPE") model.refuse_type("BPE");
    refuse_set(model, {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"});
    parts_.ignore_merges = model.boolean_or("ignore_merges", false);

    const Node vocab = model["vocab"];
    std::array<std::int32_t, 256> byte_ids;
    byte_ids.fill(-1);
    for (const auto& [name, value] : vocab.object().items()) {
      const std::int32_t id = Node(value, vocab.where() + ": " + in_quotes(name)).id();
      SEER_CHECK(static_cast<std::size_t>(id) >= parts_.tokens.size() ||
                     !parts_.tokens[static_cast<std::size_t>(id)].known,
                 "{}: {}: id {} is taken by another token", vocab.where(), in_quotes(name), id);
      name_token(name, id, /*special=*/false);
      const auto bytes = bytes_of_token(name);
      if (!bytes) continue;
      if (bytes->size() == 1) byte_ids[static_cast<unsigned char>((*bytes)[0])] = id;
      if (parts_.ignore_merges) parts_.id_of_word[*bytes] = id;
    }
    SEER_CHECK(!model.has("unk_token") || std::count(byte_ids.begin(), byte_ids.end(), -1) == 0,
               "{}: unk_token: expected a vocabulary of all bytes or no unk_token", model.where());
    parts_.bpe = BytePairEncoder(byte_ids, read_merges(model["merges"]));
  }

  std::vector<BytePairEncoder::Merge> read_merges(const Node& node) const {
    std::vector<BytePairEncoder::Merge> merges;
    std::size_t index = 0;
    for (const Json& item : node.array()) {
      const auto where = [&, index] { return fmt::format("{}[{}]", node.where(), index); };
      ++index;
      std::string left, right;
      if (item.is_string()) {
        const std::string& pair = item.get_ref<const std::string&>();
        if (pair.starts_with("#version")) continue;
        const std::size_t space = pair.find(' ');
        SEER_CHECK(space != std::string::npos && pair.find(' ', space + 1) == std::string::npos,
                   "{}: expected two tokens with a space between, found {}", where(), in_quotes(pair));
        left = pair.substr(0, space);
        right = pair.substr(space + 1);
      } else {
        SEER_CHECK(item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string(),
                   "{}: expected two tokens, found {}", where(), item.type_name());
        left = item[0].get<std::string>();
        right = item[1].get<std::string>();
      }
      const auto id = [&](const std::string& token) {
        const auto found = parts_.id_of_token.find(token);
        SEER_CHECK(found != parts_.id_of_token.end(), "{}: token {} is not in the vocabulary", where(),
                   in_quotes(token));
        return found->second;
      };
      merges.push_back({id(left), id(right), id(left + right)});
    }
    return merges;
  }

  void read_normalizer(const Node& normalizer) {
    const std::string& type = normalizer["type"].string();
    if (type == "NFC") {
      parts_.nfc = true;
    } else if (type == "Sequence") {
      for (const Node& step : normalizer["normalizers"].items()) read_normalizer(step);
    } else {
      normalizer.refuse_type("NFC or a Sequence of it");
    }
  }

  void read_added_token(const Node& node) {
    const std::string& content = node["content"].string();
    const std::int32_t id = node["id"].id();
    if (content.empty()) return;
    refuse_set(node, {"single_word"});
    const auto known = parts_.id_of_token.find(content);
    SEER_CHECK(known == parts_.id_of_token.end() || known->second == id,
               "{}: id: expected {}, as the vocabulary has {}, found {}", node.where(), known->second,
               in_quotes(content), id);
    SEER_CHECK(known != parts_.id_of_token.end() || static_cast<std::size_t>(id) >= parts_.tokens.size() ||
                   !parts_.tokens[static_cast<std::size_t>(id)].known,
               "{}: id {} of {} is taken by another token", node.where(), id, in_quotes(content));
    AddedToken token;
    token.content = content;
    token.special = node.boolean_or("special", false);
    token.strip_left = node.boolean_or("lstrip", false);
    token.strip_right = node.boolean_or("rstrip", false);
    name_token(content, id, token.special);
    if (node.boolean_or("normalized", !token.special))
      parts_.added_after_normalizer.add(parts_.nfc ? to_nfc(content) : content, id);
    else
      parts_.added_before_normalizer.add(content, id);
    parts_.added_tokens[id] = std::move(token);
  }

  void read_pre_tokenizer(const Node& node) {
    const std::string& type = node["type"].string();
    SEER_CHECK(!byte_level_, "{}: expected ByteLevel as the last step, found {} behind it", node.where(),
               in_quotes(type));
    if (type == "Sequence") {
      for (const Node& step : node["pretokenizers"].items()) read_pre_tokenizer(step);
    } else if (type == "Split") {
      read_split(node);
    } else if (type == "Digits") {
      const bool individual = node.boolean_or("individual_digits", false);
      parts_.splits.push_back({Regex(individual ? R"(\p{N})" : R"(\p{N}+)", node.where())});
    } else if (type == "ByteLevel") {
      byte_level_ = true;
      parts_.add_prefix_space = node.boolean_or("add_prefix_space", true);
      if (node.boolean_or("use_regex", true))
        parts_.splits_after_prefix_space.push_back({Regex(kByteLevelPattern, node.where())});
    } else {
      node.refuse_type("ByteLevel, Split, Digits or Sequence");
    }
  }

  void read_split(const Node& node) {
    const Node pattern = node["pattern"];
    Split split{pattern.has("Regex") ? Regex(pattern["Regex"].string(), pattern.where())
                                     : Regex(escape_regex(pattern["String"].string()), pattern.where())};
    const std::string& behavior = node["behavior"].string();
    SEER_CHECK(behavior == "Isolated" || behavior == "Removed",
               "{}: behavior: expected Isolated or Removed, found {}", node.where(), in_quotes(behavior));
    if (behavior == "Removed")
      (node.boolean_or("invert", false) ? split.keep_gaps : split.keep_matches) = false;
    parts_.splits.push_back(std::move(split));
  }

  void read_decoder(const Node& node) {
    const std::string& type = node["type"].string();
    if (type == "Sequence") {
      const std::vector<Node> steps = node["decoders"].items();
      SEER_CHECK(steps.size() == 1, "{}: decoders: expected ByteLevel alone, found {} steps", node.where(),
                 steps.size());
      read_decoder(steps[0]);
    } else if (type != "ByteLevel") {
      node.refuse_type("ByteLevel");
    }
  }

  void read_post_processor(const Node& node) {
    const std::string& type = node["type"].string();
    if (type == "Sequence") {
      for (const Node& step : node["processors"].items()) read_post_processor(step);
    } else if (type == "TemplateProcessing") {
      read_template(node);
    } else if (type != "ByteLevel") {  // which only moves offsets
      node.refuse_type("TemplateProcessing, ByteLevel or Sequence");
    }
  }

  void read_template(const Node& node) {
    std::vector<std::int32_t> before, after;
    int texts = 0;
    for (const Node& piece : node["single"].items()) {
      if (piece.has("Sequence")) {
        const std::string& name = piece["Sequence"]["id"].string();
        SEER_CHECK(name == "A", "{}: Sequence: id: expected 'A', found {}", piece.where(), in_quotes(name));
        ++texts;
        continue;
      }
      const std::string& name = piece["SpecialToken"]["id"].string();
      const Node ids = node["special_tokens"][name.c_str()]["ids"];
      for (const Node& id : ids.items()) {
        parts_.token(id.id());
        (texts == 0 ? before : after).push_back(id.id());
      }
    }
    SEER_CHECK(texts == 1, "{}: single: expected Sequence A once, found {}", node.where(), texts);
    // A later processor wraps what an earlier one made.
    parts_.ids_before.insert(parts_.ids_before.begin(), before.begin(), before.end());
    parts_.ids_after.insert(parts_.ids_after.end(), after.begin(), after.end());
  }

  Json json_;
  Node root_;
  TokenizerParts parts_;
  bool byte_level_ = false;
};

/// The id of a token that tokenizer_config.json names, as a string or as an object with `content`.
std::optional<std::int32_t> named_token(const Node& config, const char* name, const TokenizerParts& parts) {
  if (!config.has(name)) return std::nullopt;
  const Node value = config[name];
  const std::string& token = value.json().is_object() ? value["content"].string() : value.string();
  const auto found = parts.id_of_token.find(token);
  SEER_CHECK(found != parts.id_of_token.end(), "{}: token {} is not in the vocabulary", value.where(),
             in_quotes(token));
  return found->second;
}

}  // namespace

TokenizerParts parse_tokenizer_json(std::string_view json, const std::string& label) {
  return Reader(json, label).read();
}

void parse_tokenizer_config(std::string_view text, const std::string& label, TokenizerParts& parts) {
  const Json json = parse_json(text, label);
  const Node config(json, label);
  parts.bos_id = named_token(config, "bos_token", parts);
  parts.eos_id = named_token(config, "eos_token", parts);
  parts.clean_up_tokenization_spaces = config.boolean_or("clean_up_tokenization_spaces", false);
  if (!config.has("chat_template")) return;
  const Node chat_template = config["chat_template"];
  if (!chat_template.json().is_array()) {
    parts.chat_template = chat_template.string();
    return;
  }
  for (const Node& entry : chat_template.items())
    if (entry["name"].string() == "default") parts.chat_template = entry["template"].string();
}

}  // namespace seer
