// seer eval ruler: scores, density and time to first token on RULER's 13 tasks by length.
#include "eval_ruler.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "commands.h"
#include "core/check.h"
#include "eval/ruler_eval.h"
#include "io/tensor_file.h"
#include "ruler_table.h"

using namespace seer;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kRowsFile = "ruler.json";
constexpr const char* kSamplesFile = "ruler.samples.jsonl";
constexpr std::int64_t kDefaultLength = 4096;  // of made-up samples

void check(const RulerFlags& flags, const LoadedModel& model) {
  SEER_CHECK(flags.samples >= 1, "--samples: expected 1 or more, found {}", flags.samples);
  SEER_CHECK(flags.data.empty() || flags.haystack.empty(),
             "--haystack: it is for made-up samples, --data has its own; give one of them");
  for (const std::int64_t length : flags.lengths)
    SEER_CHECK(length > 0 && length <= model.transformer->max_context(),
               "--lengths: expected 1 to the context's {} tokens (--max-context), found {}",
               model.transformer->max_context(), length);
}

std::vector<RulerGroup> make_groups(const RulerFlags& flags, const Context& context,
                                    const Tokenizer& tokenizer) {
  std::vector<const RulerTask*> tasks = named_ruler_tasks(flags);
  if (!flags.data.empty())
    return read_ruler_groups(find_ruler_files(flags.data, tasks, flags.lengths), flags.samples);
  if (tasks.empty())
    for (const RulerTask& task : ruler_tasks()) tasks.push_back(&task);
  const std::vector<std::int64_t> lengths =
      flags.lengths.empty() ? std::vector{kDefaultLength} : flags.lengths;
  const RulerHaystack haystack = flags.haystack.empty() ? RulerHaystack() : RulerHaystack(flags.haystack);
  return generate_ruler_groups(context, tasks, lengths, flags.samples, flags.seed, haystack, tokenizer);
}

/// A run on its way: everything that its output needs.
class RulerRun {
 public:
  RulerRun(const RulerFlags& flags, std::vector<RulerGroup> groups, std::vector<EvalSetting> settings,
           Json origin)
      : flags_(flags),
        groups_(std::move(groups)),
        settings_(std::move(settings)),
        origin_(std::move(origin)) {
    std::size_t first = 0;
    for (const RulerGroup& group : groups_) {
      firsts_.push_back(first);
      first += group.samples.size();
    }
  }

  /// In percent.
  double score(std::size_t sample, std::string_view prediction) const {
    const std::size_t g = group_of(sample);
    return 100 * match_ruler(groups_[g].task->match, postprocess_ruler(prediction),
                             groups_[g].samples[sample - firsts_[g]].outputs);
  }

  /// After a group's last sample its rows and predictions, after a length's last group its table.
  void add_sample(std::size_t sample, const GenerationResults& results) {
    const std::size_t g = group_of(sample);
    if (sample + 1 != firsts_[g] + groups_[g].samples.size()) return;
    std::vector<RulerRow> rows;
    for (std::size_t s = 0; s < settings_.size(); ++s) {
      rows.push_back(ruler_row(groups_[g], firsts_[g], results, settings_, s));
      write_predictions(g, s, results);
    }
    rows_.push_back(std::move(rows));
    if (g + 1 < groups_.size() && groups_[g + 1].length == groups_[g].length) return;
    finish_length(g, results);
  }

  void write_rows() const {
    if (flags_.results.empty()) return;
    Json rows = Json::array();
    for (const std::vector<RulerRow>& of_task : rows_)
      for (const RulerRow& row : of_task)
        rows.push_back(generation_row({{"task", row.task}, {"length", row.length}}, row.setting, row.score,
                                      row.summary, origin_));
    write_file_atomically((fs::path(flags_.results) / kRowsFile).string(), rows.dump(1) + "\n");
  }

 private:
  std::size_t group_of(std::size_t sample) const {
    return static_cast<std::size_t>(std::upper_bound(firsts_.begin(), firsts_.end(), sample) -
                                    firsts_.begin()) -
           1;
  }

  fs::path predictions_folder(std::int64_t length, std::size_t setting) const {
    const fs::path folder =
        fs::path(flags_.results) / "pred" / ruler_setting_folder(settings_[setting]) / std::to_string(length);
    fs::create_directories(folder);
    return folder;
  }

  void write_predictions(std::size_t g, std::size_t setting, const GenerationResults& results) const {
    if (flags_.results.empty()) return;
    const RulerGroup& group = groups_[g];
    std::string lines;
    for (std::size_t i = 0; i < group.samples.size(); ++i)
      if (const auto& record = results.records[firsts_[g] + i][setting])
        lines += ruler_prediction_line(group.samples[i], record->prediction);
    const std::string name = fmt::format("{}.jsonl", group.task->name);
    write_file_atomically((predictions_folder(group.length, setting) / name).string(), lines);
  }

  /// Table and the harness' files of the length whose last group is `last`.
  void finish_length(std::size_t last, const GenerationResults& results) const {
    std::size_t begin = last;
    while (begin > 0 && groups_[begin - 1].length == groups_[last].length) --begin;
    std::vector<std::size_t> samples(firsts_[last] + groups_[last].samples.size() - firsts_[begin]);
    std::iota(samples.begin(), samples.end(), firsts_[begin]);
    std::vector<GenerationSummary> totals;
    for (std::size_t s = 0; s < settings_.size(); ++s) {
      totals.push_back(summarize(results, samples, s));
      write_summary(begin, last, s, results);
    }
    print_ruler_table(std::span(rows_).subspan(begin, last + 1 - begin), totals);
  }

  void write_summary(std::size_t begin, std::size_t last, std::size_t setting,
                     const GenerationResults& results) const {
    if (flags_.results.empty()) return;
    std::vector<RulerTaskScore> scores;
    std::vector<RulerTaskPredictions> tasks;
    for (std::size_t g = begin; g <= last; ++g) {
      tasks.push_back({groups_[g].task, ruler_predictions(groups_[g], firsts_[g], results, setting)});
      if (!tasks.back().predictions.empty())
        scores.push_back(score_ruler_task(*groups_[g].task, tasks.back().predictions));
    }
    const fs::path folder = predictions_folder(groups_[last].length, setting);
    write_file_atomically((folder / "summary.csv").string(), ruler_summary_csv(scores));
    write_file_atomically((folder / "submission.csv").string(), ruler_submission_csv(tasks));
  }

  const RulerFlags& flags_;
  std::vector<RulerGroup> groups_;
  std::vector<EvalSetting> settings_;
  Json origin_;
  std::vector<std::size_t> firsts_;          // index of each group's first sample
  std::vector<std::vector<RulerRow>> rows_;  // [group][setting], of finished groups
};

}  // namespace

std::vector<const RulerTask*> named_ruler_tasks(const RulerFlags& flags) {
  std::vector<const RulerTask*> tasks;
  for (const std::string& name : flags.tasks) tasks.push_back(&ruler_task(name));
  std::sort(tasks.begin(), tasks.end());  // by address: the suite's order
  tasks.erase(std::unique(tasks.begin(), tasks.end()), tasks.end());
  return tasks;
}

void run_ruler(const RulerFlags& flags) {
  const std::vector<EvalSetting> settings = settings_of(flags);
  named_ruler_tasks(flags);  // a wrong name is found before a model is loaded
  const LoadedModel model = load_model(flags.model);
  check(flags, model);
  const Tokenizer tokenizer = Tokenizer::load(model.folder);
  const EvalGate gate = load_eval_gate(flags, model, settings);
  std::vector<RulerGroup> groups = make_groups(flags, model.transformer->context(), tokenizer);
  const std::vector<GenerationSample> samples =
      ruler_generation_samples(tokenizer, groups, model.transformer->max_context());

  Json origin = provenance(flags, model, gate);
  origin["haystack"] = flags.haystack;
  RulerRun run(flags, std::move(groups), settings, origin);
  const GenerationRequest request{.label = "eval ruler",
                                  .settings = settings,
                                  .seed = flags.seed,
                                  .fingerprint = run_fingerprint("ruler", origin, model),
                                  .gate_fingerprint = gate.fingerprint,
                                  .provenance = members_of(origin),
                                  .score = [&](std::size_t sample, std::string_view prediction) {
                                    return run.score(sample, prediction);
                                  }};
  std::unique_ptr<SampleLog> log;
  if (!flags.results.empty())
    log = std::make_unique<SampleLog>((fs::path(flags.results) / kSamplesFile).string());
  const GenerationResults results = evaluate_generation(
      *model.transformer, tokenizer, gate.gate.get(), samples, request, log.get(), !flags.quiet,
      [&](std::size_t sample, const GenerationResults& so_far) { run.add_sample(sample, so_far); });
  run.write_rows();
  SEER_CHECK(results.failed == 0, "{} of {} samples failed; they are named above", results.failed,
             samples.size());
}

void add_eval_ruler(CLI::App& parent) {
  auto flags = std::make_shared<RulerFlags>();
  flags->selectors = {"dense", "gate", "oracle", "local"};
  flags->rule = "threshold";
  flags->values = {5e-4};
  flags->last_block_dense = true;
  CLI::App& command = *parent.add_subcommand(
      "ruler", "RULER's 13 tasks, made up or from files: scores, density, time to first token by length");
  add_model_argument(command, flags->model);
  command.add_option(
      "--data", flags->data,
      "published samples: folder of TASK/validation.jsonl or TASK.jsonl, or of such folders by "
      "length (default: made-up samples)");
  command.add_option("--haystack", flags->haystack,
                     "text file or folder to hide needles in (default: made-up sentences)");
  add_list_option(command, "--tasks", flags->tasks, "such as niah_single_1,vt (default: all)");
  add_list_option(command, "--lengths", flags->lengths,
                  "tokens of prompt and answer (default: 4096; with --data all that there are)");
  command.add_option("--samples", flags->samples, "of each task and length")->capture_default_str();
  command.add_option("--score", flags->score,
                     "score this folder of predictions TASK.jsonl instead of running a model; --results gets "
                     "summary.csv and submission.csv");
  add_eval_flags(command, *flags, kRowsFile);
  command.callback([flags] {
    if (flags->score.empty())
      run_ruler(*flags);
    else
      score_ruler(*flags);
  });
}
