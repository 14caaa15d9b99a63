// seer score: log-probabilities of a text's tokens.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "core/progress.h"
#include "eval/scoring.h"
#include "io/tensor_file.h"

using namespace seer;
using Json = nlohmann::ordered_json;

namespace {

struct Flags {
  ModelFlags model;
  SparsityFlags sparsity;
  std::uint64_t seed = 0;
  TextFlags text;
  std::string logits_file;
  bool json = false;
};

/// Token texts as one line shows them.
std::string shown(const Tokenizer& tokenizer, std::int32_t id) {
  const std::string quoted = nlohmann::json(tokenizer.token_bytes(id))
                                 .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

void score(const Flags& flags) {
  flags.text.check();
  const LoadedModel model = load_model(flags.model);
  const std::vector<std::int32_t> tokens = flags.text.read(model.folder);
  const auto count = static_cast<std::int64_t>(tokens.size());
  SEER_CHECK(count >= 2, "{}: expected at least two tokens, found {}", flags.text.path(), count);
  const ChosenSelector chosen = choose_selector(flags.sparsity, flags.model, model.config, flags.seed);

  const std::int64_t vocab = model.config.vocab_size;
  std::vector<float> logits;
  std::function<void(std::int64_t, std::int64_t, const float*)> keep_logits;
  if (!flags.logits_file.empty()) {
    logits.resize(static_cast<std::size_t>(count * vocab));
    keep_logits = [&](std::int64_t first, std::int64_t rows, const float* source) {
      std::memcpy(logits.data() + first * vocab, source,
                  static_cast<std::size_t>(rows * vocab) * sizeof(float));
    };
  }
  Progress progress("score", static_cast<double>(count));
  const TokenScores scores = score_tokens(
      *model.transformer, tokens, chosen.selector.get(),
      [&](std::int64_t done) { progress.update(static_cast<double>(done)); }, keep_logits);
  if (!flags.logits_file.empty())
    write_safetensors(
        flags.logits_file,
        std::vector<TensorToWrite>{
            {.name = "logits", .dtype = DType::kF32, .shape = {count, vocab}, .data = logits.data()}});

  double sum = 0;
  for (const float logprob : scores.logprobs) sum -= logprob;
  const double nll = sum / static_cast<double>(scores.logprobs.size());
  const PrefillStats& stats = scores.stats;
  if (flags.json) {
    fmt::print("{}\n", Json{{"tokens", count},
                            {"nll", nll},
                            {"ppl", std::exp(nll)},
                            {"selector", name_of(chosen.kind)},
                            {"density", stats.density()},
                            {"prefill_seconds", stats.seconds - stats.logits_seconds},
                            {"ids", tokens},
                            {"logprobs", scores.logprobs}}
                           .dump());
    return;
  }
  const bool has_tokenizer = !flags.text.text_file.empty();
  std::unique_ptr<Tokenizer> tokenizer;
  if (has_tokenizer) tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(model.folder));
  fmt::print("position\tid\tlogprob\t{}\n", has_tokenizer ? "token" : "");
  for (std::size_t i = 1; i < tokens.size(); ++i)
    fmt::print("{}\t{}\t{:.6f}\t{}\n", i, tokens[i], scores.logprobs[i - 1],
               has_tokenizer ? shown(*tokenizer, tokens[i]) : "");
  fmt::print("\ntokens {}, mean NLL {:.6f}, perplexity {:.4f}, density {:.4f}, prefill {:.2f} s\n", count,
             nll, std::exp(nll), stats.density(), stats.seconds - stats.logits_seconds);
}

}  // namespace

void add_score(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command =
      *parent.add_subcommand("score", "Log-probability of every token of a text, and its perplexity");
  add_model_argument(command, flags->model);
  add_text_flags(command, flags->text);
  command.add_option("--logits", flags->logits_file,
                     "write logits float32 [tokens, vocab] to this safetensors file");
  add_gate_flag(command, flags->model);
  add_sparsity_flags(command, flags->sparsity);
  add_seed_flag(command, flags->seed);
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.add_flag("--json", flags->json, "print one JSON object");
  command.callback([flags] { score(*flags); });
}
