// Made-up RULER samples: every task at several lengths.
#include "eval/ruler_generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "core/check.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(test::embedded_model().string());
  return loaded;
}

RulerSample generate(const RulerTask& task, std::int64_t length, std::int64_t index = 0,
                     std::uint64_t seed = 0) {
  return generate_ruler_sample(task, length, index, seed, RulerHaystack(), tokenizer());
}

std::int64_t occurrences(const std::string& text, const std::string& part) {
  std::int64_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::map<std::string, std::int64_t> count_words(const std::string& text) {
  std::map<std::string, std::int64_t> counts;
  std::istringstream words(text);
  for (std::string word; words >> word;) ++counts[word];
  return counts;
}

class RulerGenerate : public ::testing::TestWithParam<RulerTask> {};

TEST_P(RulerGenerate, FillsTheLengthAndNeverMore) {
  for (const std::int64_t length : {2048, 4096}) {
    for (std::int64_t index = 0; index < 2; ++index) {
      const RulerSample sample = generate(GetParam(), length, index);
      const auto tokens = static_cast<std::int64_t>(tokenizer().encode(sample.input).size());
      EXPECT_EQ(sample.length, tokens + GetParam().max_new_tokens);
      EXPECT_LE(sample.length, length);
      // Less than one more unit: a line, a word with its repetitions, a document or two.
      EXPECT_GT(sample.length, length - 150);
    }
  }
}

TEST_P(RulerGenerate, SeedAndIndexAloneDecide) {
  const RulerSample first = generate(GetParam(), 2048, 1, 7);
  const RulerSample again = generate(GetParam(), 2048, 1, 7);
  EXPECT_EQ(first.input, again.input);
  EXPECT_EQ(first.outputs, again.outputs);
  EXPECT_NE(first.outputs, generate(GetParam(), 2048, 2, 7).outputs);
  EXPECT_NE(first.outputs, generate(GetParam(), 2048, 1, 8).outputs);
}

TEST_P(RulerGenerate, AnswersStandInTheTextAsOftenAsTheyShould) {
  const std::string name(GetParam().name);
  for (std::int64_t index = 0; index < 3; ++index) {
    const RulerSample sample = generate(GetParam(), 4096, index);
    const std::size_t outputs = sample.outputs.size();
    EXPECT_EQ(outputs, name == "niah_multivalue" || name == "niah_multiquery" ? 4u
                       : name == "vt"                                         ? 5u
                       : name == "cwe"                                        ? 10u
                       : name == "fwe"                                        ? 3u
                                                                              : 1u);
    const auto counts = count_words(sample.input);
    for (std::size_t i = 0; i < outputs; ++i) {
      const std::string& answer = sample.outputs[i];
      if (name == "cwe") {
        EXPECT_EQ(counts.at(answer), 30) << answer;
      } else if (name == "fwe") {
        // More often than any word that is no answer, less often than the dots.
        EXPECT_LT(counts.at(answer), counts.at("..."));
        for (const auto& [word, count] : counts) {
          const bool is_answer =
              std::find(sample.outputs.begin(), sample.outputs.end(), word) != sample.outputs.end();
          if (word.size() == 6 && !is_answer) {
            EXPECT_LT(count, counts.at(answer)) << word;
          }
        }
      } else if (name == "vt") {
        EXPECT_EQ(occurrences(sample.input, answer), i + 1 < outputs ? 2 : 1) << answer;
      } else {
        EXPECT_EQ(occurrences(sample.input, answer), 1) << answer;
      }
    }
    if (name == "cwe") {
      for (const auto& [word, count] : counts) {
        const bool is_answer =
            std::find(sample.outputs.begin(), sample.outputs.end(), word) != sample.outputs.end();
        EXPECT_EQ(count == 30, is_answer) << word;
      }
    }
    const bool one_needle = name.starts_with("niah") && outputs == 1;
    EXPECT_EQ(sample.depth >= 0, one_needle);
    if (one_needle) {
      const double found = 100.0 * static_cast<double>(sample.input.find(sample.outputs[0])) /
                           static_cast<double>(sample.input.size());
      EXPECT_NEAR(found, sample.depth, 6);
    }
  }
}

TEST_P(RulerGenerate, TooShortIsAnError) { EXPECT_THROW(generate(GetParam(), 40), Error); }

INSTANTIATE_TEST_SUITE_P(Tasks, RulerGenerate,
                         ::testing::ValuesIn(ruler_tasks().begin(), ruler_tasks().end()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RulerFit, FindsTheLargestThatFits) {
  for (const std::int64_t limit : {10, 11, 999, 12345}) {
    const auto tokens_of = [](std::int64_t units) { return 10 + units * 7 + units / 3; };
    const std::int64_t units = largest_fitting(0, limit, tokens_of, "x");
    EXPECT_LE(tokens_of(units), limit);
    EXPECT_GT(tokens_of(units + 1), limit);
  }
  EXPECT_THROW(largest_fitting(
                   2, 10, [](std::int64_t units) { return 9 + units; }, "x"),
               Error);
}

TEST(RulerHaystackTest, UnitsAreTheTextAgain) {
  const std::string text =
      "First line.\n\n" + std::string(200, 'x') + ". Second sentence! Third?  Rest\nlast line without end";
  std::string joined;
  for (const std::string& unit : split_units(text)) joined += unit;
  EXPECT_EQ(joined, text);
  EXPECT_EQ(split_units(text).size(), 5u);
  EXPECT_TRUE(split_units("").empty());
}

TEST(RulerHaystackTest, AnyTextHidesNeedles) {
  const fs::path path = fs::path(::testing::TempDir()) / "seer_ruler_haystack.txt";
  std::ofstream(path) << "def f(x):\n    return x\n\n" << std::string(300, 'y') << ". And more. No end";
  const RulerSample sample = generate_ruler_sample(ruler_task("niah_multikey_1"), 2048, 0, 0,
                                                   RulerHaystack(path.string()), tokenizer());
  fs::remove(path);
  EXPECT_NE(sample.input.find("def f(x):\n    return x\n"), std::string::npos);
  EXPECT_EQ(occurrences(sample.input, "\nA special number for "), 4);
  EXPECT_EQ(occurrences(sample.input, sample.outputs[0]), 1);
  EXPECT_THROW(RulerHaystack("/no/such/file"), Error);
}

TEST(RulerWords, NoWordIsPartOfAnother) {
  std::vector<std::string_view> words(ruler_adjectives().begin(), ruler_adjectives().end());
  words.insert(words.end(), ruler_nouns().begin(), ruler_nouns().end());
  for (std::size_t i = 0; i < words.size(); ++i)
    for (std::size_t j = 0; j < words.size(); ++j)
      EXPECT_EQ(words[j].find(words[i]) != std::string_view::npos, i == j) << words[i] << " " << words[j];
}

}  // namespace
}  // namespace seer
