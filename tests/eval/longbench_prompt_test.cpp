#include "eval/longbench_prompt.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tensor_file.h"
#include "support/errors.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using nlohmann::json;

/// The embedded tokenizer with other members in its tokenizer_config.json.
Tokenizer tokenizer_with(const json& members) {
  const fs::path folder =
      fs::path(::testing::TempDir()) /
      ("seer_longbench_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
  fs::remove_all(folder);
  fs::create_directories(folder);
  fs::create_symlink(test::embedded_model() / "tokenizer.json", folder / "tokenizer.json");
  json config = json::parse(read_file((test::embedded_model() / "tokenizer_config.json").string()));
  config.update(members);
  std::ofstream(folder / "tokenizer_config.json") << config;
  Tokenizer tokenizer = Tokenizer::load(folder.string());
  fs::remove_all(folder);
  return tokenizer;
}

TEST(LongBenchPromptGolden, TextsAndTokensOfTheHarness) {
  const fs::path folder = test::golden_path("eval/longbench_e");
  if (folder.empty()) GTEST_SKIP() << "no golden eval/longbench_e";
  const LongBenchConfig config((folder / "config").string());
  const Tokenizer plain = Tokenizer::load(test::embedded_model().string());
  const Tokenizer cleaning = tokenizer_with({{"clean_up_tokenization_spaces", true}});
  std::ifstream file(folder / "prompts.jsonl", std::ios::binary);
  std::string line;
  int cases = 0;
  for (; std::getline(file, line); ++cases) {
    const json record = json::parse(line);
    const LongBenchTask& task = find_longbench_task(record["task"].get<std::string>(), "task");
    SCOPED_TRACE(fmt::format("{} {}", task.name, record["index"].dump()));
    const auto samples =
        read_longbench_samples((folder / "data" / (std::string(task.name) + "_e.jsonl")).string());
    const LongBenchSample& sample = samples.at(record["index"].get<std::size_t>());
    EXPECT_EQ(sample.defect, "");
    const Tokenizer& tokenizer = record["clean_up"].get<bool>() ? cleaning : plain;
    const std::string format = config.of(task.name).format;
    const std::int64_t max_tokens = record["max_length"];

    const LongBenchText text =
        truncate_middle(tokenizer, format_longbench_prompt(format, sample.fields, "prompt"), max_tokens);
    EXPECT_EQ(text.text, record["prompt"].get<std::string>());
    EXPECT_EQ(text.full_tokens, record["full_tokens"]);
    EXPECT_EQ(text.truncated, record["truncated"]);
    EXPECT_EQ(task.chat, record["chat"]);
    const LongBenchPrompt prompt =
        make_longbench_prompt(tokenizer, task, format, sample, max_tokens, "prompt");
    EXPECT_EQ(prompt.ids, record["input_ids"].get<std::vector<std::int32_t>>());
    EXPECT_EQ(prompt.truncated, record["truncated"]);
  }
  EXPECT_GT(cases, 0);
}

TEST(LongBenchPromptGolden, LengthsAndEndsOfTheHarness) {
  const fs::path folder = test::golden_path("eval/longbench_e");
  if (folder.empty()) GTEST_SKIP() << "no golden eval/longbench_e";
  const LongBenchConfig config((folder / "config").string());
  const Tokenizer tokenizer = Tokenizer::load(test::embedded_model().string());
  const json tasks = json::parse(read_file((folder / "generation.json").string()));
  for (const auto& [name, expected] : tasks.items()) {
    SCOPED_TRACE(name);
    const LongBenchStop stop = longbench_stop(tokenizer, find_longbench_task(name, "task"));
    EXPECT_EQ(config.of(name).max_new_tokens, expected["max_new_tokens"]);
    EXPECT_EQ(stop.min_new_tokens, expected["min_new_tokens"]);
    EXPECT_EQ(json(stop.end_tokens), expected.value("eos_token_id", json::array()));
  }
}

TEST(LongBenchPrompt, ChatTasksGetTheTemplateAndASecondStartToken) {
  const Tokenizer tokenizer =
      tokenizer_with({{"chat_template", "{{ bos_token }}user: {{ messages[0].content }}\nassistant:"}});
  const LongBenchSample sample{.fields = {{"context", "C"}, {"input", "I"}}};
  const auto ids = [&](const char* task) {
    return make_longbench_prompt(tokenizer, find_longbench_task(task, "task"), "{context}?{input}", sample, 0,
                                 "prompt")
        .ids;
  };
  EXPECT_EQ(ids("qasper"), tokenizer.encode("<|begin_of_text|>user: C?I\nassistant:"));
  EXPECT_EQ(ids("qasper")[1], *tokenizer.bos_id());
  EXPECT_EQ(ids("lcc"), tokenizer.encode("C?I"));
}

TEST(LongBenchPrompt, FormatsAsPythonDoes) {
  const std::map<std::string, std::string> fields{{"context", "{input}"}, {"input", "x"}};
  EXPECT_EQ(format_longbench_prompt("{{{context}}} {input}{input}}}", fields, "p"), "{{input}} xx}");
  for (const char* bad : {"{context", "{}", "a } b", "{answers}", "{context!r}", "{"}) {
    SCOPED_TRACE(bad);
    const std::string error =
        test::error_of([&] { format_longbench_prompt(bad, fields, "prompts.json: qasper"); });
    EXPECT_TRUE(error.starts_with("prompts.json: qasper: expected")) << error;
  }
}

class LongBenchDataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(::testing::TempDir()) /
        ("seer_lb_data_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  fs::path folder_;
};

TEST_F(LongBenchDataTest, BadLinesAreKeptWithWhatIsWrong) {
  const json good{{"input", "i"}, {"context", "c"},         {"answers", {"a"}},
                  {"length", 5},  {"all_classes", nullptr}, {"language", "en"}};
  const auto line = [&](const char* field, const json& value) {
    json changed = good;
    changed[field] = value;
    if (value == "(none)") changed.erase(field);
    return changed.dump() + "\n";
  };
  std::vector<std::string> expected;
  std::string text;
  const auto add = [&](const std::string& json_line, const char* defect) {
    text += json_line;
    expected.emplace_back(defect);
  };
  add(good.dump() + "\n", "");
  add(line("input", "(none)"), "expected a field input, found none");
  add(line("context", 5), "context: expected a string, found number");
  add(line("answers", "a"), "answers: expected an array of strings, found string");
  add(line("answers", json::array()), "answers: expected at least one, found none");
  add(line("answers", {"a", 1}), "answers: expected strings, found number");
  add(line("length", -1), "length: expected a number of words, found -1");
  add(line("length", "long"), "length: expected a number of words, found string");
  add(line("all_classes", 1), "all_classes: expected an array of strings, found number");
  add("[1]\n", "expected a JSON object, found array");
  add("{\"input\": \"\xff\"}\n", "expected a JSON object, found invalid JSON");
  add(good.dump().substr(0, 30), "expected a JSON object, found invalid JSON");
  const std::string path = write("qasper_e.jsonl", "\n" + text);
  const std::vector<LongBenchSample> samples = read_longbench_samples(path);
  ASSERT_EQ(samples.size(), expected.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(samples[i].defect, expected[i]);
    EXPECT_EQ(samples[i].source, fmt::format("{}:{}", path, i + 2));
  }
  EXPECT_EQ(samples[0].fields.at("context"), "c");
  EXPECT_EQ(samples[0].length, 5);
  EXPECT_THROW(read_longbench_samples(write("empty.jsonl", "\n")), Error);
  EXPECT_THROW(read_longbench_samples((folder_ / "missing.jsonl").string()), Error);
}

TEST_F(LongBenchDataTest, PredictionsComeBackAsTheyWereWritten) {
  const LongBenchSample sample{.answers = {"a", "\u00e9\n"}, .all_classes = {"x"}, .length = 7};
  const std::string text =
      longbench_prediction_line("p\u2028\t", sample) + longbench_prediction_line("", {.answers = {"b"}});
  const auto given =
      read_longbench_predictions(write("trec.jsonl", text + "{\"pred\": 3}\n" + text.substr(0, 9)), true);
  ASSERT_EQ(given.size(), 4u);
  EXPECT_EQ(given[0].prediction, "p\u2028\t");
  EXPECT_EQ(given[0].answers, sample.answers);
  EXPECT_EQ(given[0].all_classes, sample.all_classes);
  EXPECT_EQ(given[0].length, 7);
  EXPECT_EQ(given[1].prediction, "");
  EXPECT_TRUE(given[1].all_classes.empty());
  EXPECT_EQ(given[2].defect, "pred: expected a string, found number");
  EXPECT_TRUE(given[3].source.ends_with("trec.jsonl:4"));
  EXPECT_EQ(given[3].defect, "expected a JSON object, found invalid JSON");
}

TEST_F(LongBenchDataTest, ErrorsOfTheConfigNameFileAndField) {
  write("dataset2prompt.json", "{\"trec\": \"{context}\", \"lcc\": \"\"}");
  write("dataset2maxlen.json", "{\"trec\": 0}");
  EXPECT_TRUE(
      test::error_names([&] { LongBenchConfig config(folder_.string()); }, {"dataset2maxlen.json: 'trec'"}));
  write("dataset2maxlen.json", "{\"trec\": 64}");
  const LongBenchConfig config(folder_.string());
  EXPECT_EQ(config.of("trec").max_new_tokens, 64);
  EXPECT_TRUE(test::error_names([&] { config.of("lcc"); }, {"dataset2maxlen.json: expected a field lcc"}));
  EXPECT_TRUE(
      test::error_names([&] { config.of("qasper"); }, {"dataset2prompt.json: expected a field qasper"}));
}

}  // namespace
}  // namespace seer
