#include "eval/ruler_eval.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/check.h"
#include "eval/python_text.h"

namespace seer {
namespace {

/// What a sample's log lines tell beside the results.
std::string log_members(const RulerGroup& group, const RulerSample& sample) {
  nlohmann::ordered_json members{{"length", group.length}, {"outputs", sample.outputs}};
  if (sample.depth >= 0) members["depth"] = sample.depth;
  const std::string text = members.dump();
  return text.substr(1, text.size() - 2);
}

std::int64_t total_tokens(const GenerationSample& sample) {
  return static_cast<std::int64_t>(sample.prompt.size()) + sample.max_new_tokens;
}

}  // namespace

std::vector<RulerGroup> generate_ruler_groups(const Context& context, std::span<const RulerTask* const> tasks,
                                              std::span<const std::int64_t> lengths, std::int64_t samples,
                                              std::uint64_t seed, const RulerHaystack& haystack,
                                              const Tokenizer& tokenizer) {
  std::vector<RulerGroup> groups;
  for (const std::int64_t length : lengths)
    for (const RulerTask* task : tasks)
      groups.push_back({task, length, std::vector<RulerSample>(static_cast<std::size_t>(samples))});
  context.parallel_for(static_cast<std::int64_t>(groups.size()) * samples, [&](std::int64_t item, int) {
    RulerGroup& group = groups[static_cast<std::size_t>(item / samples)];
    const std::int64_t index = item % samples;
    group.samples[static_cast<std::size_t>(index)] =
        generate_ruler_sample(*group.task, group.length, index, seed, haystack, tokenizer);
  });
  return groups;
}

std::vector<RulerGroup> read_ruler_groups(std::span<const RulerFile> files, std::int64_t samples) {
  std::vector<RulerGroup> groups;
  for (const RulerFile& file : files) {
    groups.push_back({file.task, file.length, read_ruler_samples(file)});
    std::vector<RulerSample>& read = groups.back().samples;
    if (samples > 0 && static_cast<std::int64_t>(read.size()) > samples)
      read.resize(static_cast<std::size_t>(samples));
  }
  return groups;
}

std::vector<GenerationSample> ruler_generation_samples(const Tokenizer& tokenizer,
                                                       std::vector<RulerGroup>& groups,
                                                       std::int64_t max_context) {
  std::vector<GenerationSample> samples;
  std::int64_t longest = 1;
  for (const RulerGroup& group : groups) {
    for (const RulerSample& line : group.samples) {
      GenerationSample sample{.task = std::string(group.task->name),
                              .id = std::to_string(line.index),
                              .source = line.source,
                              .max_new_tokens = group.task->max_new_tokens,
                              .defect = line.defect};
      try {
        if (sample.defect.empty()) sample.prompt = tokenizer.encode(line.input);
        SEER_CHECK(total_tokens(sample) <= max_context,
                   "input: it has {} tokens and {} are to be generated, the context holds {}; raise it with "
                   "--max-context",
                   sample.prompt.size(), sample.max_new_tokens, max_context);
        SEER_CHECK(!line.input.empty() || !sample.defect.empty(),
                   "input: expected a text, found an empty one");
        longest = std::max(longest, total_tokens(sample));
      } catch (const Error& error) {
        sample.defect = error.what();
      }
      samples.push_back(std::move(sample));
    }
  }
  std::size_t next = 0;
  for (RulerGroup& group : groups) {
    if (group.length == 0)
      group.length = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(longest)));
    for (const RulerSample& line : group.samples) {
      samples[next].bucket = std::to_string(group.length);
      samples[next++].members = log_members(group, line);
    }
  }
  return samples;
}

std::vector<RulerPrediction> ruler_predictions(const RulerGroup& group, std::size_t first,
                                               const GenerationResults& results, std::size_t setting) {
  std::vector<RulerPrediction> predictions;
  for (std::size_t i = 0; i < group.samples.size(); ++i)
    if (const auto& record = results.records[first + i][setting])
      predictions.push_back({.source = group.samples[i].source,
                             .index = group.samples[i].index,
                             .prediction = record->prediction,
                             .outputs = group.samples[i].outputs});
  return predictions;
}

RulerRow ruler_row(const RulerGroup& group, std::size_t first, const GenerationResults& results,
                   std::span<const EvalSetting> settings, std::size_t setting) {
  std::vector<std::size_t> samples(group.samples.size());
  std::iota(samples.begin(), samples.end(), first);
  RulerRow row{.task = std::string(group.task->name),
               .length = group.length,
               .setting = settings[setting],
               .summary = summarize(results, samples, setting)};
  if (row.summary.samples == 0) return row;
  const RulerTaskScore score =
      score_ruler_task(*group.task, ruler_predictions(group, first, results, setting));
  row.score = score.score;
  row.summary.empty_predictions = score.nulls;
  return row;
}

double ruler_average(std::span<const RulerRow* const> rows) {
  double sum = 0;
  for (const RulerRow* row : rows) sum += row->score;
  return python_round(sum / static_cast<double>(rows.size()));
}

std::string ruler_setting_folder(const EvalSetting& setting) {
  if (setting.is_dense()) return "dense";
  return fmt::format("{}_{}_{}", name_of(setting.selector), setting.rule_name(),
                     python_float(setting.sparsity.value));
}

}  // namespace seer
