// seer tokenize, seer detokenize: text to ids and back.
#include <fmt/core.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "io/tensor_file.h"

using namespace seer;
using Json = nlohmann::json;

namespace {

struct Flags {
  ModelFlags model;
  std::string file;
  bool json = false;
  bool without_special = false;
  bool keep_special = false;
};

std::string read_standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

/// Calls handle(value) for every line of `text`, each a JSON value.
template <class Handle>
void for_each_json_line(const std::string& text, const std::string& label, const Handle& handle) {
  std::size_t number = 1;
  for (std::size_t begin = 0; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const Json value = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                   text.begin() + static_cast<std::ptrdiff_t>(end), nullptr,
                                   /*allow_exceptions=*/false);
    SEER_CHECK(!value.is_discarded(), "{}: line {}: not valid JSON", label, number);
    handle(value, fmt::format("{}: line {}", label, number));
    begin = end + 1;
  }
}

void tokenize(const Flags& flags) {
  const Tokenizer tokenizer = Tokenizer::load(model_folder(flags.model));
  const std::string label = flags.file.empty() ? "standard input" : flags.file;
  const std::string text = flags.file.empty() ? read_standard_input() : read_file(flags.file);
  const bool special = !flags.without_special;
  if (!flags.json) {
    check_utf8(text, label);
    fmt::print("{}\n", fmt::join(tokenizer.encode(text, special), " "));
    return;
  }
  for_each_json_line(text, label, [&](const Json& value, const std::string& where) {
    SEER_CHECK(value.is_string(), "{}: expected a JSON string, found {}", where, value.type_name());
    fmt::print("[{}]\n", fmt::join(tokenizer.encode(value.get_ref<const std::string&>(), special), ","));
  });
}

void detokenize(const Flags& flags) {
  const Tokenizer tokenizer = Tokenizer::load(model_folder(flags.model));
  const std::string label = flags.file.empty() ? "standard input" : flags.file;
  const std::string text = flags.file.empty() ? read_standard_input() : read_file(flags.file);
  const bool skip_special = !flags.keep_special;
  if (!flags.json) {
    const std::string decoded = tokenizer.decode(parse_ids(text, label), skip_special);
    std::fwrite(decoded.data(), 1, decoded.size(), stdout);
    return;
  }
  for_each_json_line(text, label, [&](const Json& value, const std::string& where) {
    SEER_CHECK(value.is_array(), "{}: expected a JSON array of ids, found {}", where, value.type_name());
    std::vector<std::int32_t> ids;
    for (const Json& id : value) {
      SEER_CHECK(id.is_number_integer() && id.get<std::int64_t>() >= 0 &&
                     id.get<std::int64_t>() < tokenizer.vocab_size(),
                 "{}: expected ids of 0..{}, found {}", where, tokenizer.vocab_size() - 1,
                 id.dump().substr(0, 40));
      ids.push_back(id.get<std::int32_t>());
    }
    fmt::print("{}\n", Json(tokenizer.decode(ids, skip_special)).dump());
  });
}

}  // namespace

void add_tokenize(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *parent.add_subcommand("tokenize", "Text to token ids");
  add_model_argument(command, flags->model);
  command.add_option("--text-file", flags->file, "text to encode (default: standard input)");
  command.add_flag("--json", flags->json, "one JSON string a line in, one JSON array of ids a line out");
  command.add_flag("--no-special-tokens", flags->without_special,
                   "leave out the start token that the tokenizer adds");
  command.callback([flags] { tokenize(*flags); });
}

void add_detokenize(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *parent.add_subcommand("detokenize", "Token ids to text");
  add_model_argument(command, flags->model);
  command.add_option("--ids", flags->file, "text file of integers (default: standard input)");
  command.add_flag("--json", flags->json, "one JSON array of ids a line in, one JSON string a line out");
  command.add_flag("--keep-special-tokens", flags->keep_special, "show special tokens as text");
  command.callback([flags] { detokenize(*flags); });
}
