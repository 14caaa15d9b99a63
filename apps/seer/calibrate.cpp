// seer calibrate: thresholds that give densities, stored with the gate.
#include "train/calibrate.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "core/progress.h"
#include "io/documents.h"
#include "train/corpus.h"

using namespace seer;

namespace {

struct Flags {
  ModelFlags model;
  std::vector<std::string> data, extensions;
  std::vector<std::int64_t> lengths{1024, 2048, 4096, 8192, 16384};
  std::vector<double> densities{0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7};
  std::string sequences = "16384:2";
  std::string rule = "residual";
  bool dense_only = false;
};

void calibrate_command(const Flags& flags) {
  const SelectRule rule = parse_calibration_rule(flags.rule);
  const LoadedModel model = load_model(flags.model);
  Gate gate = load_gate(flags.model, model.config);

  std::vector<Document> documents;
  for (const std::string& path : flags.data) {
    std::vector<Document> more = read_documents(path, flags.extensions, /*skip_bad=*/true);
    documents.insert(documents.end(), std::make_move_iterator(more.begin()),
                     std::make_move_iterator(more.end()));
  }
  CalibrateOptions options{
      .lengths = flags.lengths, .densities = flags.densities, .rule = rule, .refine = !flags.dense_only};
  std::sort(options.lengths.begin(), options.lengths.end());
  std::sort(options.densities.begin(), options.densities.end());
  const auto sequences = cut_sequences(documents, Tokenizer::load(model.folder),
                                       parse_sequence_plan(flags.sequences, "--sequences"));
  Progress progress("calibrate", 1);
  options.on_progress = [&](double done, double all) { progress.update(done / all); };
  gate.calibration = calibrate(*model.transformer, gate, sequences, options);
  const std::string folder = gate_folder(flags.model);
  save_calibration(folder, *gate.calibration);

  fmt::print("{}", flags.rule);
  for (const double density : options.densities) fmt::print("\t{:.2f}", density);
  for (const Calibration::Length& length : gate.calibration->lengths) {
    fmt::print("\n{}", length.tokens);
    for (const Calibration::Point& point : length.points) fmt::print("\t{:.3g}", point.threshold);
  }
  fmt::print("\nwritten to {}/calibration.json\n", folder);
}

}  // namespace

void add_calibrate(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *parent.add_subcommand(
      "calibrate", "Find the thresholds that give densities, and store them with the gate");
  add_model_argument(command, flags->model);
  add_gate_flag(command, flags->model);
  command.add_option("--data", flags->data, "sample text: text files, .jsonl files or folders")->required();
  command.add_option("--extensions", flags->extensions,
                     "files to read in folders, as .py (default: all text)");
  command.add_option("--lengths", flags->lengths, "prompt lengths")->delimiter(',')->capture_default_str();
  command.add_option("--densities", flags->densities, "densities between 0 and 1")
      ->delimiter(',')
      ->capture_default_str();
  command
      .add_option("--sequences", flags->sequences,
                  "LENGTH:COUNT,... to measure on; the longest must reach the longest of --lengths")
      ->capture_default_str();
  command.add_option("--rule", flags->rule, "residual | threshold | top_p")->capture_default_str();
  command.add_flag("--dense-only", flags->dense_only, "skip the sparse passes that correct the table");
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.callback([flags] { calibrate_command(*flags); });
}
