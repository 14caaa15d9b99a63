// seer eval run: the evaluations of a configuration file, each as its own subcommand would run it.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>

#include "commands.h"
#include "core/check.h"
#include "core/progress.h"
#include "eval/run_plan.h"
#include "io/tensor_file.h"

using namespace seer;
namespace fs = std::filesystem;

namespace {

/// `seer eval` with the evaluations that can be in a plan.
std::unique_ptr<CLI::App> make_evaluations() {
  auto eval = std::make_unique<CLI::App>();
  add_eval_ppl(*eval);
  add_eval_ruler(*eval);
  add_eval_longbench(*eval);
  return eval;
}

/// Parses `seer eval TASK ARGUMENTS`, and runs it unless `only_check`.
void execute(const EvalJob& job, bool only_check) {
  const std::unique_ptr<CLI::App> eval = make_evaluations();
  // Called once all flags are read, before the evaluation.
  if (only_check) eval->get_subcommand(job.task)->parse_complete_callback([] { throw CLI::Success(); });
  std::vector<std::string> reversed(job.arguments.rbegin(), job.arguments.rend());
  reversed.push_back(job.task);
  try {
    eval->parse(reversed);
  } catch (const CLI::Success&) {
  } catch (const CLI::ParseError& error) {
    fail("{}: {}", job.title, error.what());
  }
}

/// A job starts from its sibling's samples: those of the dense selector and the baselines are found there.
void take_samples(const EvalJob& job) {
  if (job.sibling.empty()) return;
  const std::string name = job.task + ".samples.jsonl";
  const fs::path source = fs::path(job.sibling) / name, target = fs::path(job.folder) / name;
  if (fs::exists(target) || !fs::exists(source)) return;
  fs::create_directories(job.folder);
  // Copied beside and renamed, so that an interruption leaves no half of it.
  const fs::path copy = fs::path(job.folder) / (name + ".copy");
  fs::copy_file(source, copy, fs::copy_options::overwrite_existing);
  fs::rename(copy, target);
}

bool knows_flag(const std::string& task, const std::string& flag) {
  return make_evaluations()->get_subcommand(task)->get_option_no_throw("--" + flag) != nullptr;
}

void run(const std::string& path) {
  using Clock = std::chrono::steady_clock;
  const EvalPlan plan = parse_eval_plan(read_file(path), path, knows_flag);
  for (const EvalJob& job : plan.jobs) execute(job, /*only_check=*/true);
  double total = 0, done = 0;
  for (const EvalJob& job : plan.jobs) total += job.work;

  const auto start = Clock::now();
  std::size_t failed = 0;
  for (std::size_t i = 0; i < plan.jobs.size(); ++i) {
    const EvalJob& job = plan.jobs[i];
    const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    fmt::print(stderr, "eval run: {} of {}: {}{}\n", i + 1, plan.jobs.size(), job.title,
               done > 0 ? fmt::format("; about {} left", format_duration(elapsed * (total - done) / done))
                        : std::string());
    fmt::print("{}{}\n", i == 0 ? "" : "\n", job.title);
    try {
      take_samples(job);
      execute(job, /*only_check=*/false);
    } catch (const Error& error) {
      fmt::print(stderr, "eval run: {}: {}\n", job.title, error.what());
      ++failed;
    }
    done += job.work;
  }
  SEER_CHECK(failed == 0, "{}: {} of {} evaluations failed; they are named above", path, failed,
             plan.jobs.size());
}

}  // namespace

void add_eval_run(CLI::App& parent) {
  auto path = std::make_shared<std::string>();
  CLI::App& command = *parent.add_subcommand(
      "run", "Evaluations of models and gates as a file describes them; goes on where it was interrupted");
  command.add_option("CONFIG", *path, "JSON file of models, gates, tasks and results (docs/report.md)")
      ->required();
  command.callback([path] { run(*path); });
}
