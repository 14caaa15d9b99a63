#include "eval/ruler_results.h"

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "eval/json_lines.h"
#include "eval/python_text.h"

namespace seer {
namespace {

RulerPrediction parse_prediction(std::string_view line) {
  const nlohmann::json json = parse_json_object(line);
  RulerPrediction prediction;
  const nlohmann::json& index = json_member(json, "index");
  SEER_CHECK(index.is_number_integer(), "index: expected an integer, found {}", index.type_name());
  prediction.index = index.get<std::int64_t>();
  prediction.prediction = string_member(json, "pred");
  prediction.outputs = strings_member(json, "outputs");
  SEER_CHECK(!prediction.outputs.empty(), "outputs: expected at least one, found none");
  return prediction;
}

/// A field of a CSV file, in quotes where it has a comma, a quote or a line end.
std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

std::string ruler_prediction_line(const RulerSample& sample, std::string_view prediction) {
  const nlohmann::ordered_json line{{"index", sample.index},
                                    {"pred", prediction},
                                    {"input", sample.input},
                                    {"outputs", sample.outputs},
                                    {"others", nlohmann::ordered_json::parse(sample.others)},
                                    {"truncation", sample.truncation},
                                    {"length", sample.length}};
  return line.dump() + "\n";
}

std::vector<RulerPrediction> read_ruler_predictions(const std::string& path) {
  return read_json_lines<RulerPrediction>(path, parse_prediction);
}

RulerTaskScore score_ruler_task(const RulerTask& task, std::span<const RulerPrediction> predictions) {
  RulerTaskScore result{.task = &task};
  std::vector<double> scores;
  for (const RulerPrediction& prediction : predictions) {
    if (!prediction.defect.empty()) continue;
    const std::string text = postprocess_ruler(prediction.prediction);
    result.nulls += text.empty();
    scores.push_back(match_ruler(task.match, text, prediction.outputs));
  }
  result.samples = static_cast<std::int64_t>(scores.size());
  result.score = ruler_percent(scores);
  return result;
}

std::string ruler_summary_csv(std::span<const RulerTaskScore> scores) {
  std::string columns = "0", names = "Tasks", values = "Score", nulls = "Nulls";
  for (std::size_t i = 0; i < scores.size(); ++i) {
    columns += fmt::format(",{}", i + 1);
    names += fmt::format(",{}", scores[i].task->name);
    values += "," + python_float(scores[i].score);
    nulls += fmt::format(",{}/{}", scores[i].nulls, scores[i].samples);
  }
  return fmt::format("{}\n{}\n{}\n{}\n", columns, names, values, nulls);
}

std::string ruler_submission_csv(std::span<const RulerTaskPredictions> tasks) {
  std::string text = "Task,ID,Prediction\n";
  for (const RulerTaskPredictions& task : tasks)
    for (const RulerPrediction& prediction : task.predictions)
      if (prediction.defect.empty())
        text += fmt::format("{},{},{}\n", task.task->name, prediction.index,
                            csv_field(postprocess_ruler(prediction.prediction)));
  return text;
}

}  // namespace seer
