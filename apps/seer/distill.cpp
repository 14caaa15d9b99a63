// seer distill: gates for a model, learned from its own attention.
#include "train/distill.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "io/documents.h"
#include "train/corpus.h"

using namespace seer;

namespace {

struct Flags {
  ModelFlags model;
  DistillOptions options;
  std::vector<std::string> data, extensions;
  std::string sequences = "4096:64,8192:64,16384:16";
  std::string loss = "row", init = "identity", weights = "bf16", format = "safetensors";
  std::string gate_type = "Qavg_Kmaxminavg";
  int gate_hidden = 0;
  bool force_double = false;
};

void distill_command(Flags& flags) {
  DistillOptions& options = flags.options;
  options.model_folder = model_folder(flags.model);
  options.loss = parse_gate_loss(flags.loss);
  options.init = parse_gate_init(flags.init);
  SEER_CHECK(flags.weights == "bf16" || flags.weights == "f32",
             "--weights: expected bf16 or f32, found \"{}\"", flags.weights);
  SEER_CHECK(flags.format == "safetensors" || flags.format == "pth",
             "--format: expected safetensors or pth, found \"{}\"", flags.format);
  options.save = {.torch_format = flags.format == "pth",
                  .dtype = flags.weights == "bf16" ? DType::kBF16 : DType::kF32};
  const std::vector<SequencePlan> plan = parse_sequence_plan(flags.sequences, "--sequences");

  const LoadedModel model = load_model(flags.model);
  options.gate = parse_gate_type(flags.gate_type);
  options.gate.gate_hidden_size = flags.gate_hidden > 0 ? flags.gate_hidden : model.config.head_dim;
  options.gate.force_double = flags.force_double;
  options.gate.base_model = std::filesystem::path(options.model_folder).filename().string();

  std::vector<Document> documents;
  for (const std::string& path : flags.data) {
    std::vector<Document> more = read_documents(path, flags.extensions, /*skip_bad=*/true);
    documents.insert(documents.end(), std::make_move_iterator(more.begin()),
                     std::make_move_iterator(more.end()));
  }
  const auto sequences = cut_sequences(documents, Tokenizer::load(model.folder), plan);
  const DistillResult result = distill(*model.transformer, sequences, options);
  if (!result.finished) return;
  fmt::print("layer\theld-out loss\trecall at density {:.2f}\n", options.recall_density);
  for (std::size_t layer = 0; layer < result.quality.loss.size(); ++layer)
    fmt::print("{}\t{:.4f}\t{:.4f}\n", layer, result.quality.loss[layer], result.quality.recall[layer]);
  fmt::print("gates after {} steps ({:.0f} s of training) in {}\n", result.steps, result.seconds,
             options.out);
}

}  // namespace

void add_distill(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  DistillOptions& options = flags->options;
  CLI::App& command = *parent.add_subcommand("distill", "Train gates for a model from its own attention");
  add_model_argument(command, flags->model);
  command.add_option("--data", flags->data, "training text: text files, .jsonl files or folders")->required();
  command.add_option("--out", options.out, "gate folder to write; a killed run goes on from it")->required();
  command.add_option("--extensions", flags->extensions,
                     "files to read in folders, as .py (default: all text)");
  command.add_option("--sequences", flags->sequences, "LENGTH:COUNT,... of training and held-out sequences")
      ->capture_default_str();
  command.add_option("--held-out", options.held_out, "sequences measured and not trained on")
      ->capture_default_str();
  command.add_option("--steps", options.steps, "updates")->capture_default_str();
  command.add_option("--batch", options.batch, "sequences per update")->capture_default_str();
  command.add_option("--lr", options.learning_rate, "peak learning rate; cosine to 0")->capture_default_str();
  command.add_option("--warmup", options.warmup_steps, "steps of rising learning rate")
      ->capture_default_str();
  command.add_option("--loss", flags->loss, "row | reference")->capture_default_str();
  command.add_option("--init", flags->init, "identity | xavier")->capture_default_str();
  command.add_option("--gate-type", flags->gate_type, "Q<pools>_K<pools>, pools of max, min, avg")
      ->capture_default_str();
  command.add_option("--gate-hidden", flags->gate_hidden, "gate's dimension (default: the model's head_dim)");
  command.add_flag("--force-double", flags->force_double, "a q linear even where none is needed");
  command.add_option("--recall-density", options.recall_density, "density at which recall is measured")
      ->capture_default_str();
  command.add_option("--log-every", options.log_every, "steps between log lines")->capture_default_str();
  command.add_option("--evaluate-every", options.evaluate_every, "steps between held-out measurements")
      ->capture_default_str();
  command.add_option("--checkpoint-every", options.checkpoint_every, "steps between checkpoints")
      ->capture_default_str();
  command.add_option("--cache", options.cache,
                     "folder for the model's pooled attention (default: OUT/cache)");
  command.add_flag("--keep-cache", options.keep_cache, "keep OUT/cache after success");
  command.add_option("--weights", flags->weights, "bf16 | f32")->capture_default_str();
  command.add_option("--format", flags->format, "safetensors | pth")->capture_default_str();
  add_seed_flag(command, options.seed);
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.callback([flags] { distill_command(*flags); });
}
