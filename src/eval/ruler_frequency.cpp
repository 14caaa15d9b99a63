// cwe and fwe: which words does a long list have most often?
#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"
#include "eval/ruler_generate.h"

namespace seer {
namespace {

constexpr std::int64_t kCommonWords = 10;

/// How often words stand in a list of cwe, and how many words the worked example has.
struct CommonWordCounts {
  std::int64_t often, seldom;
  std::int64_t example_words, example_often, example_seldom;
};

CommonWordCounts counts_for(std::int64_t length) {
  return length < kRulerShortLength ? CommonWordCounts{6, 1, 20, 3, 1} : CommonWordCounts{30, 3, 40, 10, 3};
}

/// A numbered list in random order: the first kCommonWords of `words` `often` times, the others `seldom`
/// times.
std::string numbered_list(RulerRandom random, std::span<const std::string> words, std::int64_t often,
                          std::int64_t seldom) {
  std::vector<std::string_view> entries;
  for (std::size_t i = 0; i < words.size(); ++i)
    entries.insert(entries.end(), static_cast<std::size_t>(i < kCommonWords ? often : seldom), words[i]);
  random.shuffle(entries);
  std::string list;
  for (std::size_t i = 0; i < entries.size(); ++i)
    list += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, entries[i]);
  return list;
}

std::string common_words_block(const std::string& list) {
  return fmt::format(
      "Below is a numbered list of words; some stand in it more often than the others.\n{}\n"
      "The ten words that stand in the list most often are:",
      list);
}

/// The i-th word of a list without end: the words themselves, then pairs of them.
std::string word_or_pair(std::span<const std::string> words, std::int64_t i) {
  const auto size = static_cast<std::int64_t>(words.size());
  const std::int64_t first = i % size, round = i / size;
  SEER_CHECK(round < size, "RULER: cwe has no more than {} words", size * size);
  const std::string& word = words[static_cast<std::size_t>(first)];
  return round == 0 ? word : word + "-" + words[static_cast<std::size_t>((first + round) % size)];
}

}  // namespace

RulerDraft draft_common_words(std::uint64_t seed, std::int64_t length) {
  RulerRandom random(seed);
  std::vector<std::string> words;
  for (const auto list : {ruler_adjectives(), ruler_nouns()})
    words.insert(words.end(), list.begin(), list.end());
  random.shuffle(words);
  // The example's words, then the common ones; the others are free to be used up.
  const CommonWordCounts counts = counts_for(length);
  const auto example_end = words.begin() + counts.example_words, common_end = example_end + kCommonWords;
  const std::vector<std::string> example(words.begin(), example_end), common(example_end, common_end);
  const std::vector<std::string> others(common_end, words.end());

  std::string intro = common_words_block(
      numbered_list(RulerRandom(seed + 1), example, counts.example_often, counts.example_seldom));
  for (std::int64_t i = 0; i < kCommonWords; ++i)
    intro += fmt::format(" {}. {}", i + 1, example[static_cast<std::size_t>(i)]);
  intro += "\n\n";

  RulerDraft draft;
  draft.outputs = common;
  draft.input = [=](std::int64_t units) {
    std::vector<std::string> listed = common;
    for (std::int64_t i = 0; i < units; ++i) listed.push_back(word_or_pair(others, i));
    return intro +
           common_words_block(numbered_list(RulerRandom(seed + 2), listed, counts.often, counts.seldom));
  };
  return draft;
}

RulerDraft draft_frequent_words(std::uint64_t seed, std::int64_t length) {
  constexpr std::int64_t kTokensPerWord = 50;  // of the sample's length, for each word of the vocabulary
  constexpr std::int64_t kCodeLetters = 6;
  constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;
  RulerRandom random(seed);
  DistinctTexts codes(random,
                      [](RulerRandom& r) { return r.word("abcdefghijklmnopqrstuvwxyz", kCodeLetters); });
  // By rank: dots are the most frequent and no answer, the three words after them are.
  std::vector<std::string> vocabulary{"..."};
  const std::int64_t size = std::max<std::int64_t>(length / kTokensPerWord, 8);
  while (static_cast<std::int64_t>(vocabulary.size()) < size) vocabulary.push_back(codes.next());

  RulerDraft draft;
  draft.outputs.assign(vocabulary.begin() + 1, vocabulary.begin() + 4);
  draft.smallest = 100;  // so that the four first ranks differ in frequency
  draft.input = [=](std::int64_t units) {
    std::vector<std::string_view> words;
    for (std::size_t i = 0; i < vocabulary.size(); ++i) {
      const auto rank = static_cast<double>(i + 1);
      const auto count = static_cast<std::size_t>(static_cast<double>(units) / (kZeta2 * rank * rank));
      words.insert(words.end(), count, vocabulary[i]);
    }
    RulerRandom(seed + 1).shuffle(words);
    std::string text = "Below is a text of code words, with dots among them that mean nothing.\n";
    for (const std::string_view word : words) text.append(word) += ' ';
    text.back() = '\n';
    return text + "Leaving out the dots, the three code words that the text has most often are:";
  };
  return draft;
}

}  // namespace seer
