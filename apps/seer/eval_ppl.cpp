// seer eval ppl: perplexity by length, selector and density.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "eval/perplexity.h"
#include "eval_common.h"
#include "io/tensor_file.h"

using namespace seer;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

struct Flags : EvalFlags {
  std::vector<std::string> extensions;
  std::vector<std::int64_t> lengths{2048, 4096, 8192};
  std::int64_t max_documents = 0;
  std::int64_t sliding_window = 0;
  std::string json;
};

constexpr const char* kRowsFile = "ppl.json";
constexpr const char* kSamplesFile = "ppl.samples.jsonl";

/// Where finished samples are kept: the results folder, or beside --json's file; empty without either.
std::string samples_path(const Flags& flags) {
  if (!flags.results.empty()) return (fs::path(flags.results) / kSamplesFile).string();
  return flags.json.empty() ? std::string() : flags.json + ".samples.jsonl";
}

Json to_json(const PplRow& row, const Json& origin) {
  Json nll = Json::array();
  std::int64_t tokens = 0;
  for (const PplSample& sample : row.samples) {
    nll.push_back(sample.nll);
    tokens += sample.tokens;
  }
  Json json{{"length", row.length},
            {"selector", name_of(row.setting.selector)},
            {"rule", row.rule_name()},
            {"value", row.setting.sparsity.value},
            {"density", row.density()},
            {"ppl", row.ppl()},
            {"nll", nll},
            {"tokens", tokens},
            {"prefill_seconds", row.prefill_seconds()},
            {"select_seconds", row.select_seconds()},
            {"attention_seconds", row.attention_seconds()},
            {"last_block_dense", row.setting.sparsity.last_block_dense}};
  json.update(origin);
  return json;
}

void print_header() {
  fmt::print("{:>7}  {:<8}  {:<9}  {:>6}  {:>8}  {:>9}  {:>8}  {:>9}  {:>8}  {:>11}  {:>8}  {:>8}\n",
             "length", "selector", "rule", "value", "density", "ppl", "loss", "prefill", "speed-up",
             "attention+", "speed-up", "select");
}

/// Loss and speed-ups are over the dense row of the same length, where there is one.
void print_rows(const std::vector<PplRow>& rows) {
  const PplRow* dense = nullptr;
  for (const PplRow& row : rows)
    if (row.setting.selector == SelectorKind::kDense) dense = &row;
  for (const PplRow& row : rows) {
    const bool compared = dense != nullptr && dense != &row;
    const double attention = row.attention_seconds() + row.select_seconds();
    const auto over = [&](double mine, double of_dense) {
      return compared && mine > 0 ? fmt::format("{:.2f} x", of_dense / mine) : std::string("-");
    };
    fmt::print(
        "{:>7}  {:<8}  {:<9}  {:>6}  {:>8.4f}  {:>9.4f}  {:>8}  {:>7.2f} s  {:>8}  {:>9.2f} s  {:>8}  "
        "{:>6.2f} s\n",
        row.length, name_of(row.setting.selector), row.rule_name(),
        row.setting.selector == SelectorKind::kDense ? "-"
                                                     : fmt::format("{:.4g}", row.setting.sparsity.value),
        row.density(), row.ppl(),
        compared ? fmt::format("{:+.2f} %", 100 * (row.ppl() / dense->ppl() - 1)) : std::string("-"),
        row.prefill_seconds(), over(row.prefill_seconds(), dense != nullptr ? dense->prefill_seconds() : 0),
        attention, over(attention, dense != nullptr ? dense->attention_seconds() : 0), row.select_seconds());
  }
  std::fflush(stdout);
}

void check(const Flags& flags) {
  SEER_CHECK(!flags.data.empty(), "--data: expected a .jsonl file, a text file or a folder, found nothing");
  SEER_CHECK(fs::exists(flags.data), "--data: no such file or folder: {}", flags.data);
  for (const std::int64_t length : flags.lengths)
    SEER_CHECK(length >= 2, "--lengths: expected 2 tokens or more, found {}", length);
  SEER_CHECK(flags.max_documents >= 0, "--max-documents: expected 0 (all) or more, found {}",
             flags.max_documents);
  const std::int64_t shortest = *std::min_element(flags.lengths.begin(), flags.lengths.end());
  SEER_CHECK(flags.sliding_window >= 0 && flags.sliding_window < shortest,
             "--sliding-window: expected less than the shortest length {}, found {}", shortest,
             flags.sliding_window);
}

/// Baselines have no scores that a threshold or a mass could refer to.
void check_baselines(const std::vector<EvalSetting>& settings) {
  using Rule = SparsityOptions::Rule;
  for (const EvalSetting& setting : settings)
    SEER_CHECK(!setting.is_baseline() || setting.sparsity.rule == Rule::kAdaptive ||
                   setting.sparsity.rule == Rule::kNzRatio,
               "--selectors {}: expected --rule adaptive or nz_ratio, found {}", name_of(setting.selector),
               name_of(setting.sparsity.rule));
}

void evaluate(const Flags& flags) {
  check(flags);
  PplRequest request{.lengths = flags.lengths,
                     .settings = settings_of(flags),
                     .stride = flags.sliding_window,
                     .seed = flags.seed};
  check_baselines(request.settings);
  const LoadedModel model = load_model(flags.model);
  const std::int64_t longest = *std::max_element(flags.lengths.begin(), flags.lengths.end());
  SEER_CHECK(longest <= model.transformer->max_context(),
             "--lengths: {} is longer than the context of {} tokens; raise it with --max-context", longest,
             model.transformer->max_context());

  const EvalGate gate = load_eval_gate(flags, model, request.settings);
  request.gate_fingerprint = gate.fingerprint;
  std::unique_ptr<Tokenizer> tokenizer;
  if (fs::exists(fs::path(model.folder) / "tokenizer.json"))
    tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(model.folder));
  request.start_token = tokenizer ? tokenizer->bos_id() : model.config.bos_token_id;
  const EvalData data = load_eval_data({.path = flags.data,
                                        .extensions = flags.extensions,
                                        .min_tokens = request.start_token ? longest - 1 : longest,
                                        .max_documents = flags.max_documents},
                                       tokenizer.get());
  if (!flags.quiet)
    fmt::print(stderr, "{}: {} documents of {} tokens or more, {} shorter ones left out\n", flags.data,
               data.documents.size(), request.start_token ? longest - 1 : longest, data.left_out);

  const Json origin = provenance(flags, model, gate);
  request.fingerprint = run_fingerprint("ppl", origin, model);
  request.provenance = members_of(origin);
  std::unique_ptr<SampleLog> log;
  if (const std::string path = samples_path(flags); !path.empty()) log = std::make_unique<SampleLog>(path);

  Json rows = Json::array();
  print_header();
  evaluate_perplexity(*model.transformer, gate.gate.get(), data.documents, request, log.get(), !flags.quiet,
                      [&](const std::vector<PplRow>& of_length) {
                        print_rows(of_length);
                        for (const PplRow& row : of_length) rows.push_back(to_json(row, origin));
                      });
  const std::string text = rows.dump(1) + "\n";
  if (!flags.results.empty()) write_file_atomically((fs::path(flags.results) / kRowsFile).string(), text);
  if (!flags.json.empty()) write_file_atomically(flags.json, text);
}

}  // namespace

void add_eval_ppl(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command =
      *parent.add_subcommand("ppl", "Perplexity, density and prefill time by length and selector");
  add_model_argument(command, flags->model);
  command.add_option("--data", flags->data,
                     "documents: .jsonl with `text` or `input_ids`, a text file, or a folder of texts");
  add_list_option(command, "--extensions", flags->extensions,
                  "of a folder's files, such as .py,.md (default: all)");
  add_list_option(command, "--lengths", flags->lengths, "tokens per forward pass, the start token included");
  command.add_option("--max-documents", flags->max_documents, "use the first so many (0: all)")
      ->capture_default_str();
  command
      .add_option("--sliding-window", flags->sliding_window,
                  "windows every so many tokens instead of each document's beginning (0: off)")
      ->capture_default_str();
  command.add_option("--json", flags->json, "file for the rows; finished samples lie beside it");
  add_eval_flags(command, *flags, kRowsFile);
  command.callback([flags] { evaluate(*flags); });
}
