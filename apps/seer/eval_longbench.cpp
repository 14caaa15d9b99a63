// seer eval longbench: scores, density and time to first token on LongBench and LongBench-E.
#include "eval_longbench.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "core/check.h"
#include "eval/longbench_prompt.h"
#include "longbench_results.h"

using namespace seer;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kSamplesFile = "longbench.samples.jsonl";

/// The folder of the jsonl files: --data, or its subfolder `data` as LongBench's repository has it.
fs::path data_folder(const LongBenchFlags& flags) {
  SEER_CHECK(!flags.data.empty(), "--data: expected LongBench's folder of .jsonl files, found nothing");
  SEER_CHECK(fs::is_directory(flags.data), "--data: no such folder: {}", flags.data);
  const fs::path inner = fs::path(flags.data) / "data";
  return fs::is_directory(inner) ? inner : fs::path(flags.data);
}

/// --config, or `config` in or beside the data.
std::string config_folder(const LongBenchFlags& flags) {
  if (!flags.config.empty()) return flags.config;
  const fs::path data = fs::path(flags.data) / "";
  const fs::path inner = data / "config";
  return (fs::is_directory(inner) ? inner : data.parent_path().parent_path() / "config").string();
}

std::string task_file(const LongBenchFlags& flags, const LongBenchTask& task) {
  return (data_folder(flags) / fmt::format("{}{}.jsonl", task.name, flags.e ? "_e" : "")).string();
}

/// Those of --tasks, or all of the benchmark whose file is there.
std::vector<const LongBenchTask*> chosen_tasks(const LongBenchFlags& flags) {
  std::vector<const LongBenchTask*> tasks = named_longbench_tasks(flags);
  if (!tasks.empty()) return tasks;
  for (const LongBenchTask& task : longbench_tasks())
    if ((task.in_e || !flags.e) && fs::exists(task_file(flags, task))) tasks.push_back(&task);
  SEER_CHECK(!tasks.empty(), "--data: expected files such as {}, found none",
             task_file(flags, find_longbench_task("qasper", "--data")));
  return tasks;
}

/// Says what a reader of the scores should know.
void print_notes(const LongBenchFlags& flags, std::span<const LongBenchTaskRun> tasks,
                 const std::string& model, bool has_template) {
  std::string missing;
  for (const LongBenchTask& task : longbench_tasks()) {
    const bool runs = std::any_of(tasks.begin(), tasks.end(),
                                  [&](const LongBenchTaskRun& run) { return run.task == &task; });
    if ((task.in_e || !flags.e) && !runs)
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", task.name);
  }
  if (!missing.empty() && flags.tasks.empty())
    fmt::print(stderr, "{}: no files of the tasks {}\n", data_folder(flags).string(), missing);
  if (!has_template &&
      std::any_of(tasks.begin(), tasks.end(), [](const LongBenchTaskRun& run) { return run.task->chat; }))
    fmt::print(stderr, "{}: no chat template; all prompts are plain\n", model);
}

std::vector<LongBenchTaskRun> read_tasks(const LongBenchFlags& flags) {
  const std::vector<const LongBenchTask*> tasks = chosen_tasks(flags);
  const LongBenchConfig config(config_folder(flags));
  std::vector<LongBenchTaskRun> runs;
  for (const LongBenchTask* task : tasks) {
    runs.push_back({task, config.of(task->name), read_longbench_samples(task_file(flags, *task))});
    std::vector<LongBenchSample>& samples = runs.back().samples;
    if (flags.max_samples > 0 && static_cast<std::int64_t>(samples.size()) > flags.max_samples)
      samples.resize(static_cast<std::size_t>(flags.max_samples));
  }
  return runs;
}

/// Flags with room for the longest answer behind the longest prompt: the harness lets a model go on past its
/// max_position_embeddings.
ModelFlags with_room(const ModelFlags& flags, std::int64_t positions,
                     std::span<const LongBenchTaskRun> tasks) {
  ModelFlags roomy = flags;
  if (flags.max_context > 0) return roomy;
  for (const LongBenchTaskRun& task : tasks)
    roomy.max_context = std::max(roomy.max_context, positions + task.prompt.max_new_tokens);
  return roomy;
}

}  // namespace

std::vector<const LongBenchTask*> named_longbench_tasks(const LongBenchFlags& flags) {
  std::vector<const LongBenchTask*> tasks;
  for (const std::string& name : flags.tasks) {
    const LongBenchTask& task = find_longbench_task(name, "--tasks");
    if (std::find(tasks.begin(), tasks.end(), &task) == tasks.end()) tasks.push_back(&task);
  }
  return tasks;
}

void run_longbench(const LongBenchFlags& flags) {
  SEER_CHECK(flags.max_samples >= 0, "--max-samples: expected 0 (all) or more, found {}", flags.max_samples);
  const std::vector<EvalSetting> settings = settings_of(flags);
  std::vector<LongBenchTaskRun> tasks = read_tasks(flags);
  const std::int64_t positions = flags.model.max_context > 0
                                     ? flags.model.max_context
                                     : load_model_config(model_folder(flags.model)).max_position_embeddings;
  const std::int64_t prompt_tokens = positions - kLongBenchReserve;
  SEER_CHECK(!flags.truncate || prompt_tokens >= 2,
             "--max-context: expected more than the {} tokens that LongBench keeps for template and answer, "
             "found {}",
             kLongBenchReserve, positions);
  const LoadedModel model = load_model(with_room(flags.model, positions, tasks));
  const Tokenizer tokenizer = Tokenizer::load(model.folder);
  const bool has_template = !tokenizer.chat_template().empty();
  const EvalGate gate = load_eval_gate(flags, model, settings);
  if (!flags.quiet) print_notes(flags, tasks, model.folder, has_template);
  Json origin = provenance(flags, model, gate);
  origin["benchmark"] = flags.e ? "LongBench-E" : "LongBench";
  origin["chat_template"] = has_template;
  const std::vector<GenerationSample> samples = longbench_generation_samples(
      model.transformer->context(), tokenizer, tasks, flags.truncate ? prompt_tokens : 0);
  LongBenchResults collected(flags, std::move(tasks), settings, model.folder, origin);
  Fingerprint fingerprint;
  fingerprint.add(run_fingerprint("longbench", origin, model))
      .add(static_cast<std::uint64_t>(model.transformer->max_context()));
  const GenerationRequest request{.label = "eval longbench",
                                  .settings = settings,
                                  .seed = flags.seed,
                                  .fingerprint = fingerprint.value(),
                                  .gate_fingerprint = gate.fingerprint,
                                  .provenance = members_of(origin),
                                  .score = [&](std::size_t sample, std::string_view prediction) {
                                    return collected.score(sample, prediction);
                                  }};
  std::unique_ptr<SampleLog> log;
  if (!flags.results.empty())
    log = std::make_unique<SampleLog>((fs::path(flags.results) / kSamplesFile).string());

  const GenerationResults results = evaluate_generation(
      *model.transformer, tokenizer, gate.gate.get(), samples, request, log.get(), !flags.quiet,
      [&](std::size_t sample, const GenerationResults& so_far) { collected.add_sample(sample, so_far); });
  collected.finish(results);
  SEER_CHECK(results.failed == 0, "{} of {} samples failed; they are named above", results.failed,
             samples.size());
}

void add_eval_longbench(CLI::App& parent) {
  auto flags = std::make_shared<LongBenchFlags>();
  flags->rule = "threshold";
  flags->values = {2e-3};
  flags->last_block_dense = true;
  CLI::App& command = *parent.add_subcommand(
      "longbench",
      "LongBench-E and LongBench from the published files: scores, density, time to first token");
  add_model_argument(command, flags->model);
  command.add_option("--data", flags->data,
                     "folder of TASK_e.jsonl (or TASK.jsonl), or one with these in data/");
  command.add_option(
      "--config", flags->config,
      "folder of dataset2prompt.json and dataset2maxlen.json (default: config/ in or beside --data)");
  add_list_option(command, "--tasks", flags->tasks, "such as qasper,trec (default: all that --data has)");
  command.add_flag("--e,!--no-e", flags->e, "LongBench-E: TASK_e.jsonl, scores by length (default: yes)");
  command.add_flag("--truncate,!--no-truncate", flags->truncate,
                   "cut prompts in the middle to the context less 500 tokens (default: yes)");
  command.add_option("--max-samples", flags->max_samples, "of each task, the first so many (0: all)")
      ->capture_default_str();
  command.add_option("--score", flags->score,
                     "score this folder of predictions TASK.jsonl instead of running a model; --results gets "
                     "result.json");
  add_eval_flags(command, *flags, kLongBenchRowsFile);
  command.callback([flags] {
    if (flags->score.empty())
      run_longbench(*flags);
    else
      score_longbench(*flags);
  });
}
