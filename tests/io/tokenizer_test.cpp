#include "io/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/files.h"
#include "io/tensor_file.h"
#include "support/errors.h"
#include "support/golden.h"

namespace seer {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using test::error_names;
using test::TemporaryFolder;

std::vector<Json> read_lines(const std::filesystem::path& path) {
  std::vector<Json> lines;
  std::string line;
  for (const char c : read_file(path.string())) {
    line += c;
    if (c == '\n') lines.push_back(Json::parse(line)), line.clear();
  }
  return lines;
}

const Tokenizer& pico() {
  static const Tokenizer tokenizer = Tokenizer::load(test::embedded_model().string());
  return tokenizer;
}

TEST(TokenizerGolden, EncodesAndDecodes) {
  const auto path = test::golden_path("tokenizer/pico.jsonl");
  if (path.empty()) GTEST_SKIP() << "tokenizer/pico.jsonl is absent";
  for (const Json& line : read_lines(path)) {
    const std::string text = line["text"];
    const Ids ids = line["ids"];
    EXPECT_EQ(pico().encode(text, line["add_special_tokens"].get<bool>()), ids) << line;
    EXPECT_EQ(pico().decode(ids), line["decoded"].get<std::string>()) << line;
  }
}

TEST(TokenizerGolden, DecodesIdsCutAnywhere) {
  const auto path = test::golden_path("tokenizer/pico_decode.jsonl");
  if (path.empty()) GTEST_SKIP() << "tokenizer/pico_decode.jsonl is absent";
  for (const Json& line : read_lines(path)) {
    const Ids ids = line["ids"];
    EXPECT_EQ(pico().decode(ids), line["decoded"].get<std::string>()) << line;
    EXPECT_EQ(pico().decode(ids, false), line["decoded_with_special"].get<std::string>()) << line;
    StreamDecoder stream(pico());
    std::string text;
    for (const std::int32_t id : ids) {
      text += stream.push(id);
      EXPECT_EQ(find_invalid_utf8(text), std::nullopt);
    }
    EXPECT_EQ(text + stream.finish(), line["decoded"].get<std::string>()) << line;
  }
}

TEST(Tokenizer, KnowsItsVocabulary) {
  EXPECT_EQ(pico().vocab_size(), 4096);
  EXPECT_EQ(pico().bos_id(), 0);
  EXPECT_EQ(pico().eos_id(), 1);
  EXPECT_EQ(pico().token_to_id("<|eot_id|>"), 4);
  EXPECT_EQ(pico().token_to_id("no such token"), std::nullopt);
  EXPECT_TRUE(pico().is_special(4));
  EXPECT_FALSE(pico().is_special(225));
  EXPECT_EQ(pico().token_bytes(225), " ");
  EXPECT_EQ(pico().token_bytes(1), "<|end_of_text|>");
  EXPECT_EQ(pico().chat_template(), "");
  EXPECT_TRUE(error_names([] { pico().decode(Ids{4096}); }, {"tokenizer.json", "4096"}));
  EXPECT_TRUE(error_names([] { pico().decode(Ids{-1}); }, {"tokenizer.json", "-1"}));
  EXPECT_TRUE(error_names([] { pico().encode("ab\xff"); }, {"UTF-8", "byte 2"}));
}

TEST(Tokenizer, LongRunsAreNoTrouble) {
  for (const char* unit : {" ", "a", "\n", ".", "7", "\u4e2d", " \n", "a "}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    EXPECT_EQ(pico().decode(pico().encode(text)), text) << unit;
  }
}

/// A tokenizer of all bytes (id = position in the alphabet) and some merges, with fields replaced.
Json byte_tokenizer() {
  Json vocab = Json::object();
  int next = 256, id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    const int character = printable ? byte : next++;
    std::string name;
    if (character < 0x80) {
      name += static_cast<char>(character);
    } else {
      name += static_cast<char>(0xc0 | character >> 6);
      name += static_cast<char>(0x80 | (character & 0x3f));
    }
    vocab[name] = id++;
  }
  for (const char* name : {"ab", "abc", "bc", "cd", "hello"}) vocab[name] = id++;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", {"c d", "a b", "ab c", "b c"}}}}};
}

Tokenizer make(const Json& json) { return Tokenizer::parse(json.dump(), "t.json"); }

/// The pieces of an encoding, as "a|b".
std::string pieces(const Tokenizer& tokenizer, std::string_view text) {
  std::string joined;
  for (const std::int32_t id : tokenizer.encode(text))
    joined += (joined.empty() ? "" : "|") + tokenizer.token_bytes(id);
  return joined;
}

Json added(const char* content, int id) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  Json json = byte_tokenizer();
  EXPECT_EQ(pieces(make(json), "abc"), "abc");
  EXPECT_EQ(pieces(make(json), "abcd"), "ab|cd");
  EXPECT_EQ(pieces(make(json), "xbcabab"), "x|bc|ab|ab");
  EXPECT_EQ(pieces(make(json), "hello"), "h|e|l|l|o");
  json["model"]["merges"] = Json::parse(R"([["c", "d"], ["a", "b"], ["ab", "c"], ["b", "c"]])");
  EXPECT_EQ(pieces(make(json), "abcd"), "ab|cd");
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(pieces(make(json), "hello"), "hello");
  EXPECT_EQ(pieces(make(json), "hello hello"), "hello| |h|e|l|l|o");
}

TEST(Tokenizer, SplitsByThePatternOfByteLevel) {
  Json json = byte_tokenizer();
  // The space before a letter belongs to its word: "b c" never crosses words.
  json["model"]["merges"] = {"a b", "b c", "c d"};
  EXPECT_EQ(pieces(make(json), "ab cd"), "ab| |cd");
  json["model"]["vocab"]["b\u0120"] = 300;
  json["model"]["merges"] = {"b \u0120"};
  EXPECT_EQ(pieces(make(json), "ab cd"), "a|b| |c|d");
  json["pre_tokenizer"]["use_regex"] = false;
  EXPECT_EQ(pieces(make(json), "ab cd"), "a|b |c|d");
  json["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_EQ(pieces(make(json), "ab"), " |a|b");
  EXPECT_EQ(pieces(make(json), " ab"), " |a|b");
}

TEST(Tokenizer, SplitsAndDigits) {
  Json json = byte_tokenizer();
  json["model"]["vocab"]["12"] = 300;
  json["model"]["merges"].push_back("1 2");
  const Json byte_level = json["pre_tokenizer"];
  const auto with = [&](const Json& step) {
    json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {step, byte_level}}};
    return make(json);
  };
  EXPECT_EQ(pieces(with({{"type", "Digits"}, {"individual_digits", true}}), "a12"), "a|1|2");
  EXPECT_EQ(pieces(with({{"type", "Digits"}, {"individual_digits", false}}), "a12"), "a|12");
  const auto split = [](Json pattern, const char* behavior, bool invert) {
    return Json{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
  };
  EXPECT_EQ(pieces(with(split({{"String", "b"}}, "Isolated", false)), "abc"), "a|b|c");
  EXPECT_EQ(pieces(with(split({{"String", "."}}, "Removed", false)), "ab.c"), "ab|c");
  EXPECT_EQ(pieces(with(split({{"Regex", "[a-c]+"}}, "Removed", true)), "abcx.ab"), "abc|ab");
  EXPECT_TRUE(error_names(
      [&] {
        with(split({{"String", "b"}}, "MergedWithNext", false));
      },
      {"t.json", "pre_tokenizer", "behavior", "'MergedWithNext'"}));
}

/// The ends of the matches of a Split pattern are the ends of words; words are read off by letting every word
/// be one token.
std::vector<std::string> words(const char* pattern, const std::string& text) {
  Json json = byte_tokenizer();
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  // Every prefix of every suffix would be needed to merge; instead each word's pieces carry its first byte.
  std::vector<std::string> result;
  json["model"]["ignore_merges"] = true;
  int id = 1000;
  const auto& vocab = json["model"]["vocab"];
  std::map<std::string, std::string> names;
  const Tokenizer plain = make(json);
  for (const auto& [name, byte_id] : vocab.items()) names[plain.token_bytes(byte_id.get<int>())] = name;
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    std::string name;
    for (std::size_t end = begin; end < text.size(); ++end) {
      name += names[text.substr(end, 1)];
      if (end > begin && !vocab.contains(name)) json["model"]["vocab"][name] = id++;
    }
  }
  const Tokenizer whole = make(json);
  for (const std::int32_t token : whole.encode(text)) result.push_back(whole.token_bytes(token));
  return result;
}

TEST(Tokenizer, PatternsOfLlama3AndQwen) {
  using Words = std::vector<std::string>;
  const char* llama =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const char* qwen =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(words(llama, "I'LL say 1234567 times"),
            (Words{"I", "'LL", " say", " ", "123", "456", "7", " times"}));
  EXPECT_EQ(words(qwen, "x123"), (Words{"x", "1", "2", "3"}));
  EXPECT_EQ(words(llama, "a  b   \n\n c\t"), (Words{"a", " ", " b", "   \n\n", " c", "\t"}));
  EXPECT_EQ(words(llama, "a.\n\nb\u00e9!?\r\n"), (Words{"a", ".\n\n", "b\u00e9", "!?\r\n"}));
  EXPECT_EQ(words(llama, "\u4e2d\u6587\u3000\u0663"), (Words{"\u4e2d\u6587", "\u3000", "\u0663"}));
  // U+180E is no white space (PCRE2 counts it), U+0085 is; U+017F is an s in any case.
  EXPECT_EQ(words(llama, "a\u180e\u180eb"), (Words{"a", "\u180e\u180e", "b"}));
  EXPECT_EQ(words(llama, "a\u0085\u0085b"), (Words{"a", "\u0085", "\u0085b"}));
  EXPECT_EQ(words(llama, "it'\u017f"), (Words{"it", "'\u017f"}));
}

TEST(Tokenizer, AddedTokens) {
  Json json = byte_tokenizer();
  json["added_tokens"] = {added("<a>", 400), added("<a>b", 401), added("<strip>", 402),
                          added("\u00e9\u00e9", 403)};
  json["added_tokens"][2]["lstrip"] = json["added_tokens"][2]["rstrip"] = true;
  json["added_tokens"][3]["special"] = false;
  json["added_tokens"][3]["normalized"] = true;
  const Tokenizer tokenizer = make(json);
  EXPECT_EQ(tokenizer.vocab_size(), 404);
  const std::int32_t b = *tokenizer.token_to_id("b"), x = *tokenizer.token_to_id("x");
  EXPECT_EQ(tokenizer.encode("x<a>bb<a>"), (Ids{x, 401, b, 400}));
  EXPECT_EQ(tokenizer.encode("x \u3000<strip> \n<strip>x"), (Ids{x, 402, 402, x}));
  EXPECT_EQ(tokenizer.encode("x<a"), (Ids{x, *tokenizer.token_to_id("<"), *tokenizer.token_to_id("a")}));
  EXPECT_EQ(tokenizer.decode(Ids{x, 400, b}), "xb");
  EXPECT_EQ(tokenizer.decode(Ids{x, 400, b}, false), "x<a>b");
  EXPECT_EQ(tokenizer.encode("\u00e9\u00e9"), (Ids{403}));

  // A normalised token is looked for in the normalised text, others in the text as it is.
  json["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(make(json).encode("e\u0301e\u0301"), (Ids{403}));
  json["added_tokens"][3]["normalized"] = false;
  EXPECT_EQ(make(json).encode("e\u0301e\u0301").size(), 4u);
  EXPECT_EQ(make(json).encode("\u00e9\u00e9"), (Ids{403}));
}

TEST(Tokenizer, NormalisesToComposedForm) {
  Json json = byte_tokenizer();
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  const Tokenizer tokenizer = make(json);
  const auto round = [&](std::string_view text) { return tokenizer.decode(tokenizer.encode(text)); };
  EXPECT_EQ(round("e\u0301"), "\u00e9");
  EXPECT_EQ(round("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(round("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(round("\u212b"), "\u00c5");
  EXPECT_EQ(round(std::string_view("e\u0301\0z", 5)), std::string_view("\u00e9\0z", 4));
}

TEST(Tokenizer, PostProcessors) {
  Json json = byte_tokenizer();
  json["added_tokens"] = {added("<s>", 400), added("</s>", 401)};
  json["post_processor"] = {{"type", "Sequence"},
                            {"processors",
                             {{{"type", "ByteLevel"}, {"add_prefix_space", true}},
                              {{"type", "TemplateProcessing"},
                               {"single",
                                {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
                                 {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
                                 {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
                               {"special_tokens",
                                {{"<s>", {{"id", "<s>"}, {"ids", {400}}, {"tokens", {"<s>"}}}},
                                 {"</s>", {{"id", "</s>"}, {"ids", {401}}, {"tokens", {"</s>"}}}}}}}}}};
  const Tokenizer tokenizer = make(json);
  const std::int32_t x = *tokenizer.token_to_id("x");
  EXPECT_EQ(tokenizer.encode("x"), (Ids{400, x, 401}));
  EXPECT_EQ(tokenizer.encode("x", false), (Ids{x}));
  EXPECT_EQ(tokenizer.encode(""), (Ids{400, 401}));
}

TEST(Tokenizer, ReadsItsConfiguration) {
  const TemporaryFolder folder;
  Json json = byte_tokenizer();
  json["added_tokens"] = {added("<s>", 400), added("</s>", 401)};
  folder.write("tokenizer.json", json.dump());
  const auto load = [&](const Json& config) {
    folder.write("tokenizer_config.json", config.dump());
    return Tokenizer::load(folder.folder().string());
  };
  const Tokenizer tokenizer = load({{"bos_token", {{"content", "<s>"}}},
                                    {"eos_token", "</s>"},
                                    {"clean_up_tokenization_spaces", true},
                                    {"chat_template", "{{ x }}"}});
  EXPECT_EQ(tokenizer.bos_id(), 400);
  EXPECT_EQ(tokenizer.eos_id(), 401);
  EXPECT_EQ(tokenizer.chat_template(), "{{ x }}");
  EXPECT_TRUE(tokenizer.clean_up_tokenization_spaces());
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("it 's . I do n't , really ?")), "it's. I don't, really?");

  const Tokenizer several =
      load({{"bos_token", nullptr},
            {"chat_template",
             {{{"name", "tool_use"}, {"template", "a"}}, {{"name", "default"}, {"template", "b"}}}}});
  EXPECT_EQ(several.bos_id(), std::nullopt);
  EXPECT_EQ(several.chat_template(), "b");
  EXPECT_EQ(several.decode(several.encode("a .")), "a .");
  EXPECT_TRUE(error_names(
      [&] {
        load({{"eos_token", "<x>"}});
      },
      {"tokenizer_config.json", "eos_token", "'<x>'"}));
  EXPECT_TRUE(error_names([&] { load({{"eos_token", 3}}); }, {"eos_token", "a string", "number"}));
  EXPECT_TRUE(error_names([] { Tokenizer::load("/nowhere"); }, {"/nowhere/tokenizer.json"}));
}

TEST(Tokenizer, RefusesWhatItDoesNotKnow) {
  const auto refused = [](const char* pointer, const Json& value,
                          std::initializer_list<std::string_view> parts) {
    Json json = byte_tokenizer();
    json[Json::json_pointer(pointer)] = value;
    return error_names([&] { make(json); }, parts);
  };
  EXPECT_TRUE(refused("/model/type", "WordPiece", {"t.json: model: type", "BPE", "'WordPiece'"}));
  EXPECT_TRUE(refused("/model/dropout", 0.1, {"model: dropout", "0.1"}));
  EXPECT_TRUE(refused("/model/byte_fallback", true, {"byte_fallback", "true"}));
  EXPECT_TRUE(refused("/model/end_of_word_suffix", "</w>", {"end_of_word_suffix", "</w>"}));
  EXPECT_TRUE(refused("/model/merges", {"a"}, {"merges[0]", "'a'"}));
  EXPECT_TRUE(refused("/model/merges", {"a b c"}, {"merges[0]", "'a b c'"}));
  EXPECT_TRUE(refused("/model/merges", {"a z"}, {"merges[0]", "'az'", "vocabulary"}));
  EXPECT_TRUE(refused("/model/merges", Json::parse(R"([["a", 1]])"), {"merges[0]", "two tokens"}));
  EXPECT_TRUE(refused("/model/merges", 1, {"merges", "an array", "number"}));
  EXPECT_TRUE(refused("/model/vocab/a", -1, {"vocab: 'a'", "-1"}));
  EXPECT_TRUE(refused("/model/vocab/a", 1e9, {"vocab: 'a'"}));
  EXPECT_TRUE(refused("/model/vocab/a", 999999999, {"vocab: 'a'", "999999999"}));
  EXPECT_TRUE(refused("/model/vocab/a", 3, {"vocab", "taken"}));
  EXPECT_TRUE(refused("/model/vocab", Json::array(), {"vocab", "an object", "array"}));
  EXPECT_TRUE(refused("/normalizer", {{"type", "Lowercase"}}, {"normalizer: type", "NFC", "'Lowercase'"}));
  EXPECT_TRUE(refused("/pre_tokenizer", {{"type", "Whitespace"}}, {"pre_tokenizer: type", "'Whitespace'"}));
  EXPECT_TRUE(refused("/pre_tokenizer", nullptr, {"pre_tokenizer", "an object", "null"}));
  EXPECT_TRUE(refused("/pre_tokenizer", {{"type", "Digits"}}, {"pre_tokenizer", "ByteLevel", "none"}));
  EXPECT_TRUE(refused("/decoder", {{"type", "WordPiece"}}, {"decoder: type", "'WordPiece'"}));
  EXPECT_TRUE(
      refused("/post_processor", {{"type", "BertProcessing"}}, {"post_processor", "'BertProcessing'"}));
  EXPECT_TRUE(refused("/added_tokens", {{{"id", 5}, {"content", "<s>"}}}, {"added_tokens[0]", "taken"}));
  EXPECT_TRUE(refused("/added_tokens", {{{"id", 500}, {"content", "a"}}}, {"added_tokens[0]", "found 500"}));
  EXPECT_TRUE(refused("/added_tokens", {{{"id", 500}, {"content", "<s>"}, {"single_word", true}}},
                      {"added_tokens[0]", "single_word"}));
  for (const char* pattern : {"\\w+", "\\bx", "^a", "a$", "(?<n>a)", "(?m)a", "[a&&b]", "[[:alpha:]]",
                              "(*UTF)a", "[^\\S]", "(a", "a{1,2}+", "\\", "[a", "\\p{Nope}", "a**b("})
    EXPECT_TRUE(refused("/pre_tokenizer",
                        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}},
                        {"t.json: pre_tokenizer: pattern", "regular expression"}))
        << pattern;

  EXPECT_TRUE(error_names([] { Tokenizer::parse("", "t.json"); }, {"t.json", "invalid JSON"}));
  EXPECT_TRUE(error_names([] { Tokenizer::parse("[]", "t.json"); }, {"t.json", "a JSON object", "array"}));
  EXPECT_TRUE(error_names([] { Tokenizer::parse("{}", "t.json"); }, {"t.json", "model is missing"}));
  EXPECT_TRUE(
      error_names([] { Tokenizer::parse(std::string(1'000'000, '{'), "t.json"); }, {"t.json", "deeper"}));
  EXPECT_TRUE(
      error_names([] { Tokenizer::parse(std::string(1'000'000, '['), "t.json"); }, {"t.json", "deeper"}));
}

TEST(Tokenizer, NamesBytesWithoutToken) {
  Json json = byte_tokenizer();
  json["model"]["vocab"].erase("z");
  const Tokenizer tokenizer = make(json);
  EXPECT_TRUE(error_names([&] { tokenizer.encode("xyz"); }, {"0x7a"}));
  json["model"]["unk_token"] = "a";
  EXPECT_TRUE(error_names([&] { make(json); }, {"unk_token"}));
}

TEST(Tokenizer, GivesUpOnExplodingPatterns) {
  Json json = byte_tokenizer();
  json["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"},
                              {"pattern", {{"Regex", "(a|a)*[bc]"}}},
                              {"behavior", "Isolated"},
                              {"invert", false}},
                             {{"type", "ByteLevel"}}}}};
  const Tokenizer tokenizer = make(json);
  EXPECT_TRUE(error_names([&] { tokenizer.encode(std::string(64, 'a')); }, {"t.json", "regular expression"}));
}

TEST(StreamDecoder, HoldsBackIncompleteCharacters) {
  const Tokenizer tokenizer = make(byte_tokenizer());
  const Ids ids = tokenizer.encode("a\U0001f600b");
  StreamDecoder stream(tokenizer);
  std::vector<std::string> parts;
  for (const std::int32_t id : ids) parts.push_back(stream.push(id));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "", "", "\U0001f600", "b"}));
  EXPECT_EQ(stream.finish(), "");
  stream.push(ids[1]);
  EXPECT_EQ(stream.push(ids[5]),
            "\ufffd"
            "b");
  stream.push(ids[1]);
  stream.push(ids[2]);
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace seer
