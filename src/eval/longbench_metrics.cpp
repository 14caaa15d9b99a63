#include "eval/longbench_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>

#include "core/check.h"
#include "eval/python_text.h"
#include "io/message.h"

namespace seer {
namespace {

/// Steps of the walk back through a sentence pair's table at which the harness, run on Python 3.11 with its
/// recursion limit of 1000, gives up and counts 0.
constexpr std::size_t kTooManySteps = 991;

bool is_ascii_punctuation(char32_t c) {
  return (c >= U'!' && c <= U'/') || (c >= U':' && c <= U'@') || (c >= U'[' && c <= U'`') ||
         (c >= U'{' && c <= U'~');
}

/// Words in lower case, without ASCII punctuation and articles.
std::vector<std::u32string> normalized_words(std::string_view text) {
  std::u32string letters = python_lower(to_utf32(text));
  std::erase_if(letters, is_ascii_punctuation);
  for (auto begin = letters.begin(); begin != letters.end();) {
    begin = std::find_if(begin, letters.end(), is_python_word);
    const auto end = std::find_if_not(begin, letters.end(), is_python_word);
    const std::u32string_view word(begin, end);
    if (word == U"a" || word == U"an" || word == U"the") std::fill(begin, end, U' ');
    begin = end;
  }
  return python_split(letters);
}

using Words = std::vector<int>;  // equal words have equal numbers

/// Sentences of a text as the package `rouge` sees them.
class Sentences {
 public:
  Sentences(std::string_view text, std::map<std::u32string, int>& numbers) {
    while (!text.empty()) {
      const std::string_view sentence = text.substr(0, text.find('.'));
      text.remove_prefix(std::min(text.size(), sentence.size() + 1));
      if (sentence.empty()) continue;
      std::vector<std::u32string> words = python_split(to_utf32(sentence));
      if (words.empty()) words.emplace_back();  // of white space alone: one empty word
      Words& numbered = sentences_.emplace_back();
      for (const std::u32string& word : words) {
        numbered.push_back(numbers.try_emplace(word, static_cast<int>(numbers.size())).first->second);
        distinct_.insert(numbered.back());
      }
    }
  }
  std::span<const Words> sentences() const { return sentences_; }
  double distinct_words() const { return static_cast<double>(distinct_.size()); }

 private:
  std::vector<Words> sentences_;
  std::unordered_set<int> distinct_;
};

/// Adds the words of a longest common subsequence to `common`, the one among several that the package finds.
/// False where it gives up.
bool add_common_words(const Words& reference, const Words& evaluated, std::unordered_set<int>& common) {
  const std::size_t columns = evaluated.size();
  if (std::min(reference.size(), columns) >= kTooManySteps) return false;
  // lengths[j + 1]: of the subsequence of reference[0..i] and evaluated[0..j].
  std::vector<int> lengths(columns + 1, 0);
  std::vector<char> up_is_longer(reference.size() * columns);
  for (std::size_t i = 0; i < reference.size(); ++i) {
    int diagonal = 0;
    for (std::size_t j = 0; j < columns; ++j) {
      const int up = lengths[j + 1], left = lengths[j];
      up_is_longer[i * columns + j] = up > left;
      lengths[j + 1] = reference[i] == evaluated[j] ? diagonal + 1 : std::max(up, left);
      diagonal = up;
    }
  }
  std::size_t i = reference.size(), j = columns;
  for (std::size_t steps = 0; i > 0 && j > 0;) {
    if (++steps >= kTooManySteps) return false;
    if (reference[i - 1] == evaluated[j - 1]) {
      common.insert(reference[i - 1]);
      --i;
      --j;
    } else if (up_is_longer[(i - 1) * columns + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
  return true;
}

/// Runs of decimal digits of any script.
std::vector<std::u32string> numbers_in(std::u32string_view text) {
  std::vector<std::u32string> numbers;
  for (auto at = text.begin(); at != text.end();) {
    const auto begin = std::find_if(at, text.end(), is_python_digit);
    at = std::find_if_not(begin, text.end(), is_python_digit);
    if (begin != at) numbers.emplace_back(begin, at);
  }
  return numbers;
}

double share_equal(const std::vector<std::u32string>& numbers, const std::u32string& wanted) {
  if (numbers.empty()) return 0;
  return static_cast<double>(std::count(numbers.begin(), numbers.end(), wanted)) /
         static_cast<double>(numbers.size());
}

/// The number of the first "Paragraph N".
std::optional<std::u32string> paragraph_number(std::u32string_view text) {
  constexpr std::u32string_view kWord = U"Paragraph ";
  for (std::size_t at = text.find(kWord); at != text.npos; at = text.find(kWord, at + 1)) {
    const std::u32string_view rest = text.substr(at + kWord.size());
    if (!rest.empty() && is_python_digit(rest.front())) return numbers_in(rest).front();
  }
  return std::nullopt;
}

std::string_view without_leading_newlines(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}

/// The first line that is neither comment nor fence; empty when there is none.
std::string_view first_code_line(std::string_view text) {
  text = without_leading_newlines(text);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
    if (line.find_first_of("`#") == line.npos && line.find("//") == line.npos) return line;
    begin += line.size() + 1;
  }
  return {};
}

std::size_t longest_common_subsequence(std::u32string_view a, std::u32string_view b) {
  std::vector<std::size_t> lengths(b.size() + 1, 0);
  for (const char32_t character : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t up = lengths[j + 1];
      lengths[j + 1] = character == b[j] ? diagonal + 1 : std::max(up, lengths[j]);
      diagonal = up;
    }
  }
  return lengths.back();
}

}  // namespace

double qa_f1(std::string_view prediction, std::string_view answer) {
  const std::vector<std::u32string> predicted = normalized_words(prediction);
  const std::vector<std::u32string> wanted = normalized_words(answer);
  std::multiset<std::u32string> left(wanted.begin(), wanted.end());
  std::size_t shared = 0;
  for (const std::u32string& word : predicted) {
    const auto found = left.find(word);
    if (found == left.end()) continue;
    left.erase(found);
    ++shared;
  }
  if (shared == 0) return 0;
  const double precision = static_cast<double>(shared) / static_cast<double>(predicted.size());
  const double recall = static_cast<double>(shared) / static_cast<double>(wanted.size());
  return 2 * precision * recall / (precision + recall);
}

double rouge_l(std::string_view prediction, std::string_view answer) {
  std::map<std::u32string, int> numbers;
  const Sentences evaluated(prediction, numbers), reference(answer, numbers);
  if (evaluated.sentences().empty() || reference.sentences().empty()) return 0;
  std::unordered_set<int> common;
  for (const Words& wanted : reference.sentences())
    for (const Words& words : evaluated.sentences())
      if (!add_common_words(wanted, words, common)) return 0;
  const auto shared = static_cast<double>(common.size());
  const double recall = shared / reference.distinct_words();
  const double precision = shared / evaluated.distinct_words();
  return 2 * (precision * recall / (precision + recall + 1e-8));
}

double classification_score(std::string_view prediction, std::string_view answer,
                            std::span<const std::string> classes) {
  std::vector<std::string> named;
  for (const std::string& name : classes)
    if (prediction.find(name) != prediction.npos) named.push_back(name);
  // The harness removes from the list that it walks over, so the class after a removed one is not looked at.
  for (std::size_t i = 0; i < named.size(); ++i) {
    const std::string name = named[i];
    if (answer.find(name) != answer.npos && name != answer)
      named.erase(std::find(named.begin(), named.end(), name));
  }
  const bool found = std::find(named.begin(), named.end(), answer) != named.end();
  return found ? 1 / static_cast<double>(named.size()) : 0;
}

double count_score(std::string_view prediction, std::string_view answer) {
  return share_equal(numbers_in(to_utf32(prediction)), to_utf32(answer));
}

double retrieval_score(std::string_view prediction, std::string_view answer) {
  const std::optional<std::u32string> wanted = paragraph_number(to_utf32(answer));
  SEER_CHECK(wanted, "answers: expected \"Paragraph N\", found {}", in_quotes(answer));
  return share_equal(numbers_in(to_utf32(prediction)), *wanted);
}

double code_similarity(std::string_view prediction, std::string_view answer) {
  const std::u32string line = to_utf32(first_code_line(prediction)), wanted = to_utf32(answer);
  if (line == wanted) return 1;
  if (line.empty() || wanted.empty()) return 0;
  const auto characters = static_cast<double>(line.size() + wanted.size());
  const double distance = characters - 2 * static_cast<double>(longest_common_subsequence(line, wanted));
  return std::nearbyint(100 * (1.0 - distance / characters)) / 100;
}

std::string_view scored_part(const LongBenchTask& task, std::string_view prediction) {
  if (!task.first_line_only) return prediction;
  prediction = without_leading_newlines(prediction);
  return prediction.substr(0, prediction.find('\n'));
}

double longbench_score(const LongBenchTask& task, std::string_view prediction,
                       std::span<const std::string> answers, std::span<const std::string> classes) {
  SEER_CHECK(task.metric != LongBenchMetric::kClassification || !classes.empty(),
             "all_classes: expected the classes of {}, found none", task.name);
  prediction = scored_part(task, prediction);
  const auto score = [&](const std::string& answer) {
    switch (task.metric) {
      case LongBenchMetric::kQaF1:
        return qa_f1(prediction, answer);
      case LongBenchMetric::kRougeL:
        return rouge_l(prediction, answer);
      case LongBenchMetric::kClassification:
        return classification_score(prediction, answer, classes);
      case LongBenchMetric::kRetrieval:
        return retrieval_score(prediction, answer);
      case LongBenchMetric::kCount:
        return count_score(prediction, answer);
      case LongBenchMetric::kCodeSimilarity:
        return code_similarity(prediction, answer);
    }
    return 0.0;
  };
  double best = 0;
  for (const std::string& answer : answers) best = std::max(best, score(answer));
  return best;
}

}  // namespace seer
