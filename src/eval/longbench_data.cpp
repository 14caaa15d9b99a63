#include "eval/longbench_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "eval/json_lines.h"
#include "io/message.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::json;

std::vector<std::string> classes_member(const Json& json) {
  return json_member(json, "all_classes").is_null() ? std::vector<std::string>()
                                                    : strings_member(json, "all_classes");
}

std::int64_t length_member(const Json& json) {
  const Json& value = json_member(json, "length");
  SEER_CHECK(value.is_number_unsigned() && value.get<std::uint64_t>() <= (std::uint64_t{1} << 40),
             "length: expected a number of words, found {}",
             value.is_number() ? value.dump() : value.type_name());
  return value.get<std::int64_t>();
}

LongBenchSample parse_sample(std::string_view line) {
  LongBenchSample sample;
  const Json json = parse_json_object(line);
  string_member(json, "input");
  string_member(json, "context");
  for (const auto& [name, value] : json.items())
    if (value.is_string()) sample.fields.emplace(name, value.get<std::string>());
  sample.answers = strings_member(json, "answers");
  SEER_CHECK(!sample.answers.empty(), "answers: expected at least one, found none");
  sample.all_classes = classes_member(json);
  sample.length = length_member(json);
  return sample;
}

LongBenchPrediction parse_prediction(std::string_view line, bool with_lengths) {
  const Json json = parse_json_object(line);
  return {.prediction = string_member(json, "pred"),
          .answers = strings_member(json, "answers"),
          .all_classes = classes_member(json),
          .length = with_lengths ? length_member(json) : 0};
}

Json read_config(const std::string& path) {
  SEER_CHECK(fs::is_regular_file(path), "{}: no such file; --config names the folder of LongBench's config",
             path);
  try {
    return parse_json_object(read_file(path));
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
}

}  // namespace

std::vector<LongBenchSample> read_longbench_samples(const std::string& path) {
  return read_json_lines<LongBenchSample>(path, parse_sample);
}

std::vector<LongBenchPrediction> read_longbench_predictions(const std::string& path, bool with_lengths) {
  return read_json_lines<LongBenchPrediction>(
      path, [&](std::string_view line) { return parse_prediction(line, with_lengths); });
}

LongBenchConfig::LongBenchConfig(const std::string& folder)
    : prompts_path_((fs::path(folder) / "dataset2prompt.json").string()),
      lengths_path_((fs::path(folder) / "dataset2maxlen.json").string()) {
  const Json prompts = read_config(prompts_path_), lengths = read_config(lengths_path_);
  for (const auto& [task, format] : prompts.items()) {
    SEER_CHECK(format.is_string(), "{}: {}: expected a string, found {}", prompts_path_, in_quotes(task),
               format.type_name());
    prompts_.emplace(task, format.get<std::string>());
  }
  for (const auto& [task, length] : lengths.items()) {
    SEER_CHECK(length.is_number_unsigned() && length.get<std::uint64_t>() > 0 &&
                   length.get<std::uint64_t>() <= (std::uint64_t{1} << 30),
               "{}: {}: expected a number of tokens, found {}", lengths_path_, in_quotes(task),
               length.is_number() ? length.dump() : length.type_name());
    lengths_.emplace(task, length.get<std::int64_t>());
  }
}

LongBenchPromptConfig LongBenchConfig::of(std::string_view task) const {
  const auto prompt = prompts_.find(std::string(task));
  SEER_CHECK(prompt != prompts_.end(), "{}: expected a field {}, found none", prompts_path_, task);
  const auto length = lengths_.find(std::string(task));
  SEER_CHECK(length != lengths_.end(), "{}: expected a field {}, found none", lengths_path_, task);
  return {prompt->second, length->second};
}

std::string format_longbench_prompt(std::string_view format, const std::map<std::string, std::string>& fields,
                                    const std::string& label) {
  std::string text;
  while (!format.empty()) {
    const std::size_t brace = std::min(format.find_first_of("{}"), format.size());
    text += format.substr(0, brace);
    format.remove_prefix(brace);
    if (format.empty()) break;
    if (format.size() > 1 && format[1] == format[0]) {
      text += format[0];
      format.remove_prefix(2);
      continue;
    }
    const std::size_t end = format.find('}');
    SEER_CHECK(format[0] == '{' && end != format.npos,
               "{}: expected {{field}}, or a brace written twice, found {}", label, in_quotes(format));
    const std::string name(format.substr(1, end - 1));
    const auto field = fields.find(name);
    SEER_CHECK(field != fields.end(), "{}: expected a string field {}, found none", label, in_quotes(name));
    text += field->second;
    format.remove_prefix(end + 1);
  }
  return text;
}

std::string longbench_prediction_line(std::string_view prediction, const LongBenchSample& sample) {
  const nlohmann::ordered_json line{
      {"pred", prediction},
      {"answers", sample.answers},
      {"all_classes",
       sample.all_classes.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(sample.all_classes)},
      {"length", sample.length}};
  return line.dump() + "\n";
}

}  // namespace seer
