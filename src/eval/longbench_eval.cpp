#include "eval/longbench_eval.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "core/check.h"
#include "eval/longbench_metrics.h"
#include "eval/longbench_prompt.h"
#include "eval/python_text.h"

namespace seer {
namespace {

GenerationSample generation_sample(const Tokenizer& tokenizer, const LongBenchTaskRun& run, std::size_t index,
                                   std::int64_t max_prompt_tokens) {
  const LongBenchSample& line = run.samples[index];
  GenerationSample sample{.task = std::string(run.task->name),
                          .id = std::to_string(index),
                          .bucket = std::string(kLongBenchBuckets[longbench_bucket(line.length)]),
                          .source = line.source,
                          .defect = line.defect};
  if (!sample.defect.empty()) return sample;
  try {
    longbench_score(*run.task, "", line.answers,
                    run.all_classes());  // what it cannot score is found before a run
    LongBenchPrompt prompt = make_longbench_prompt(tokenizer, *run.task, run.prompt.format, line,
                                                   max_prompt_tokens, "dataset2prompt.json");
    const LongBenchStop stop = longbench_stop(tokenizer, *run.task);
    sample.prompt = std::move(prompt.ids);
    sample.max_new_tokens = run.prompt.max_new_tokens;
    sample.min_new_tokens = stop.min_new_tokens;
    sample.end_tokens = stop.end_tokens;
    sample.members = fmt::format(R"("length":{},"truncated":{})", line.length, prompt.truncated);
  } catch (const Error& error) {
    sample.defect = error.what();
  }
  return sample;
}

}  // namespace

const std::vector<std::string>& LongBenchTaskRun::all_classes() const {
  static const std::vector<std::string> kNone;
  for (auto line = samples.rbegin(); line != samples.rend(); ++line)
    if (line->defect.empty()) return line->all_classes;
  return kNone;
}

std::vector<GenerationSample> longbench_generation_samples(const Context& context, const Tokenizer& tokenizer,
                                                           std::span<const LongBenchTaskRun> tasks,
                                                           std::int64_t max_prompt_tokens) {
  std::vector<std::pair<const LongBenchTaskRun*, std::size_t>> lines;
  for (const LongBenchTaskRun& run : tasks)
    for (std::size_t i = 0; i < run.samples.size(); ++i) lines.emplace_back(&run, i);
  std::vector<GenerationSample> samples(lines.size());
  context.parallel_for(static_cast<std::int64_t>(lines.size()), [&](std::int64_t i, int) {
    const auto& [run, index] = lines[static_cast<std::size_t>(i)];
    samples[static_cast<std::size_t>(i)] = generation_sample(tokenizer, *run, index, max_prompt_tokens);
  });
  return samples;
}

LongBenchRow longbench_row(const LongBenchTaskRun& task, std::size_t first, const GenerationResults& results,
                           std::span<const EvalSetting> settings, std::size_t setting) {
  std::vector<double> scores;
  std::vector<std::int64_t> lengths;
  std::vector<std::size_t> samples;
  std::array<std::vector<std::size_t>, kLongBenchBuckets.size()> by_bucket;
  for (std::size_t i = 0; i < task.samples.size(); ++i) {
    samples.push_back(first + i);
    const auto& record = results.records[first + i][setting];
    if (!record) continue;
    scores.push_back(record->score);
    lengths.push_back(task.samples[i].length);
    by_bucket[longbench_bucket(lengths.back())].push_back(first + i);
  }
  LongBenchRow row{.setting = settings[setting],
                   .score = longbench_task_score(task.task->name, scores, lengths),
                   .summary = summarize(results, samples, setting)};
  for (std::size_t b = 0; b < by_bucket.size(); ++b)
    row.densities[b] = summarize(results, by_bucket[b], setting).density;
  return row;
}

double longbench_total(const LongBenchTaskScore& score, bool by_bucket) {
  if (!by_bucket) return score.plain;
  std::vector<double> buckets;
  for (const double bucket : score.buckets)
    if (!std::isnan(bucket)) buckets.push_back(bucket);
  return numpy_round(numpy_mean(buckets));
}

std::string longbench_predictions_folder(const std::string& model_folder, const EvalSetting& setting) {
  const std::filesystem::path path = std::filesystem::path(model_folder) / "";  // a final slash or not
  const std::string model = path.parent_path().filename().string();
  if (setting.is_dense()) return model + "_dense";
  const std::string value = python_float(setting.sparsity.value);
  const bool as_harness =
      setting.selector == SelectorKind::kGate && setting.sparsity.rule == SparsityOptions::Rule::kThreshold;
  return as_harness
             ? fmt::format("{}_{}", model, value)
             : fmt::format("{}_{}_{}_{}", model, name_of(setting.selector), setting.rule_name(), value);
}

std::string longbench_predictions(const LongBenchTaskRun& task, std::size_t first,
                                  const GenerationResults& results, std::size_t setting) {
  std::string lines;
  for (std::size_t i = 0; i < task.samples.size(); ++i)
    if (const auto& record = results.records[first + i][setting])
      lines += longbench_prediction_line(record->prediction, task.samples[i]);
  return lines;
}

}  // namespace seer
