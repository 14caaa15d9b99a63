// LongBench as published: samples and predictions as JSON lines, prompts and lengths of answers by task.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace seer {

/// One line of a task's file.
struct LongBenchSample {
  std::string source;                         // file:line
  std::map<std::string, std::string> fields;  // those that are strings: `context`, `input`, ...
  std::vector<std::string> answers;
  std::vector<std::string> all_classes;  // empty where the file has null
  std::int64_t length = 0;               // as the file says: words, not tokens
  std::string defect;                    // what is wrong with the line; nothing else counts then
};

/// The lines of data/TASK_e.jsonl or TASK.jsonl. A line that is no such sample is there with its defect.
/// Throws Error when the file cannot be read or has no line.
std::vector<LongBenchSample> read_longbench_samples(const std::string& path);

/// How a task is asked.
struct LongBenchPromptConfig {
  std::string format;  // with {context}, {input}, ...
  std::int64_t max_new_tokens = 0;
};

/// FOLDER/dataset2prompt.json and dataset2maxlen.json.
class LongBenchConfig {
 public:
  /// Throws Error naming file and field.
  explicit LongBenchConfig(const std::string& folder);
  /// Throws Error naming the file that lacks the task.
  LongBenchPromptConfig of(std::string_view task) const;

 private:
  std::string prompts_path_, lengths_path_;
  std::map<std::string, std::string> prompts_;
  std::map<std::string, std::int64_t> lengths_;
};

/// `format` with its {field} replaced as Python's str.format does; "{{" and "}}" are braces. Throws Error
/// naming `label` and the field that is not there.
std::string format_longbench_prompt(std::string_view format, const std::map<std::string, std::string>& fields,
                                    const std::string& label);

/// One line of a file of predictions in the harness' layout.
struct LongBenchPrediction {
  std::string source;  // file:line
  std::string prediction;
  std::vector<std::string> answers;
  std::vector<std::string> all_classes;
  std::int64_t length = 0;
  std::string defect;  // what is wrong with the line; nothing else counts then
};

/// The lines of TASK.jsonl with `pred`, `answers`, `all_classes` and, if `with_lengths`, `length`. A line
/// that is no such prediction is there with its defect. Throws Error when the file cannot be read or has no
/// line.
std::vector<LongBenchPrediction> read_longbench_predictions(const std::string& path, bool with_lengths);

/// A line of such a file, with its line end.
std::string longbench_prediction_line(std::string_view prediction, const LongBenchSample& sample);

}  // namespace seer
