#include "io/documents.h"

#include <gtest/gtest.h>

#include "io/files.h"
#include "io/tokenizer.h"
#include "support/errors.h"

namespace seer {
namespace {

using test::error_names;
using test::TemporaryFolder;

TEST(Documents, ReadsTextAndJsonLines) {
  const TemporaryFolder folder;
  const std::string text = folder.write("a.txt", "one\ntwo\n");
  const std::vector<Document> one = read_documents(text);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].name, text);
  EXPECT_EQ(one[0].text, "one\ntwo\n");

  const std::string lines = folder.write(
      "b.jsonl",
      "{\"text\": \"a\\u00e9\", \"id\": 1}\r\n\n{\"input_ids\": [0, 2147483647]}\n{\"text\": \"\"}");
  const std::vector<Document> several = read_documents(lines);
  ASSERT_EQ(several.size(), 3u);
  EXPECT_EQ(several[0].name, lines + ":1");
  EXPECT_EQ(several[0].text, "a\u00e9");
  EXPECT_EQ(several[1].name, lines + ":3");
  EXPECT_EQ(several[1].input_ids, (std::vector<std::int32_t>{0, 2147483647}));
  EXPECT_EQ(several[2].text, "");
}

TEST(Documents, ReadsFoldersInOrder) {
  const TemporaryFolder folder;
  folder.write("b/two.py", "2");
  folder.write("a/three.txt", "3");
  folder.write("a.py", "1");
  folder.write("c.jsonl", "{\"text\": \"4\"}");
  const auto texts = [&](const std::vector<std::string>& extensions, bool skip_bad) {
    std::string joined;
    for (const Document& document : read_documents(folder.folder().string(), extensions, skip_bad))
      joined += document.text;
    return joined;
  };
  EXPECT_EQ(texts({}, false), "3124");
  EXPECT_EQ(texts({".py"}, false), "12");
  EXPECT_EQ(texts({"txt", ".jsonl"}, false), "34");

  folder.write(".git/config", "x");
  EXPECT_TRUE(error_names([&] { texts({}, false); }, {".git", "hidden"}));
  EXPECT_EQ(texts({}, true), "3124");
  std::filesystem::remove_all(folder.path(".git"));
  folder.write("bad.py", "a\xff");
  folder.write("zero.py", std::string_view("a\0", 2));
  EXPECT_TRUE(error_names([&] { texts({".py"}, false); }, {"bad.py", "UTF-8", "byte 1"}));
  EXPECT_EQ(texts({".py"}, true), "12");
  EXPECT_TRUE(error_names([&] { texts({".c"}, true); }, {"found none"}));
}

TEST(Documents, NameFileAndLineOfErrors) {
  const TemporaryFolder folder;
  const auto refused = [&](std::string_view line, std::initializer_list<std::string_view> parts) {
    const std::string path = folder.write("x.jsonl", "{\"text\": \"a\"}\n" + std::string(line) + "\n");
    const auto named = error_names([&] { read_documents(path); }, {"x.jsonl:2"});
    return named ? error_names([&] { read_documents(path); }, parts) : named;
  };
  EXPECT_TRUE(refused("{\"text\": \"a\"", {"invalid JSON"}));
  EXPECT_TRUE(refused("{\"text\": \"\xff\"}", {"invalid JSON"}));
  EXPECT_TRUE(refused("{\"text\": \"\\ud800\"}", {"invalid JSON"}));
  EXPECT_TRUE(refused("[1]", {"expected a JSON object, found array"}));
  EXPECT_TRUE(refused("{}", {"text or input_ids"}));
  EXPECT_TRUE(refused("{\"text\": 1}", {"text: expected a string, found number"}));
  EXPECT_TRUE(refused("{\"input_ids\": []}", {"input_ids", "non-empty"}));
  EXPECT_TRUE(refused("{\"input_ids\": [-1]}", {"input_ids", "found -1"}));
  EXPECT_TRUE(refused("{\"input_ids\": [2147483648]}", {"input_ids", "found 2147483648"}));
  EXPECT_TRUE(refused("{\"input_ids\": [1.5]}", {"input_ids", "found 1.5"}));
  EXPECT_TRUE(refused(std::string(500'000, '['), {"nested deeper"}));
  EXPECT_TRUE(error_names([&] { read_documents(folder.path("absent")); }, {"absent", "cannot open"}));
  EXPECT_TRUE(error_names([&] { read_documents(folder.write("e.jsonl", "\n")); }, {"e.jsonl", "none"}));
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(find_invalid_utf8("plain text of more than eight bytes"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("\u00e9\u4e2d\U0001f600\u07ff\uffff\U0010ffff\ud7ff\ue000"), std::nullopt);
  const std::pair<const char*, std::size_t> cases[] = {
      {"\x80", 0},   // a continuation byte alone
      {"a\xc3", 1},  // cut off
      {"12345678\xe4\xb8", 8},
      {"\xf0\x9f\x98", 0},
      {"\xc0\xaf", 0},  // overlong
      {"\xc1\xbf", 0},
      {"\xe0\x9f\xbf", 0},
      {"\xf0\x8f\xbf\xbf", 0},
      {"\xed\xa0\x80", 0},      // a surrogate
      {"\xf4\x90\x80\x80", 0},  // past U+10FFFF
      {"\xf5\x80\x80\x80", 0},
      {"\xff", 0},
      {"\u00e9\xe4\xb8\x41", 2},
  };
  for (const auto& [text, position] : cases) EXPECT_EQ(find_invalid_utf8(text), position) << position;
}

}  // namespace
}  // namespace seer
