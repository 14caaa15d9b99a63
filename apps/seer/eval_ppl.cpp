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
#include "io/tensor_file.h"

using namespace seer;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

struct Flags {
  ModelFlags model;
  std::string data;
  std::vector<std::string> extensions;
  std::vector<std::int64_t> lengths{2048, 4096, 8192};
  std::vector<std::string> selectors{"dense", "gate"};
  std::string rule = "adaptive";
  std::vector<double> values{0.5, 0.4, 0.3, 0.2, 0.1};
  bool last_block_dense = false;
  std::int64_t max_documents = 0;
  std::int64_t sliding_window = 0;
  std::uint64_t seed = 0;
  std::string results;
  std::string json;
  bool quiet = false;
};

constexpr const char* kRowsFile = "ppl.json";
constexpr const char* kSamplesFile = "ppl.samples.jsonl";

/// Where finished samples are kept: the results folder, or beside --json's file; empty without either.
std::string samples_path(const Flags& flags) {
  if (!flags.results.empty()) return (fs::path(flags.results) / kSamplesFile).string();
  return flags.json.empty() ? std::string() : flags.json + ".samples.jsonl";
}

/// What every record carries beside its numbers.
Json provenance(const Flags& flags, const LoadedModel& model, const std::string& gates) {
  const Context& context = model.transformer->context();
  return {{"version", SEER_VERSION},
          {"command", command_line()},
          {"model", model.folder},
          {"gate", gates.empty() ? Json() : Json(gates)},
          {"data", flags.data},
          {"dtype", dtype_name(model.transformer->options())},
          {"device", flags.model.device},
          {"isa", name_of(context.isa())},
          {"threads", context.num_threads()},
          {"seed", flags.seed}};
}

/// Everything but the text, the selector and its value that a sample's numbers depend on.
std::uint64_t run_fingerprint(const Json& origin, const LoadedModel& model) {
  Fingerprint fingerprint;
  fingerprint.add("ppl").add_file("/proc/self/exe").add_folder(model.folder);
  for (const char* name : {"dtype", "device", "isa", "threads"}) fingerprint.add(origin[name].dump());
  return fingerprint.value();
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
            {"rule", row.setting.rule_name()},
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
        row.length, name_of(row.setting.selector), row.setting.rule_name(),
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

std::vector<PplSetting> settings_of(const Flags& flags) {
  std::vector<SelectorKind> selectors;
  for (const std::string& name : flags.selectors) selectors.push_back(parse_selector_kind(name));
  const SparsityOptions::Rule rule = parse_rule(flags.rule);
  for (const double value : flags.values)
    SEER_CHECK(value >= 0 && value <= 1 && (value > 0 || rule == SparsityOptions::Rule::kThreshold),
               "--values: expected more than 0 and at most 1, found {}", value);
  for (const SelectorKind kind : selectors)
    SEER_CHECK((kind != SelectorKind::kLocal && kind != SelectorKind::kRandom) ||
                   rule == SparsityOptions::Rule::kAdaptive || rule == SparsityOptions::Rule::kNzRatio,
               "--selectors {}: expected --rule adaptive or nz_ratio, found {}", name_of(kind), flags.rule);
  return ppl_settings(selectors, rule, flags.values, flags.last_block_dense);
}

void evaluate(const Flags& flags) {
  check(flags);
  PplRequest request{.lengths = flags.lengths,
                     .settings = settings_of(flags),
                     .stride = flags.sliding_window,
                     .seed = flags.seed};
  const LoadedModel model = load_model(flags.model);
  const std::int64_t longest = *std::max_element(flags.lengths.begin(), flags.lengths.end());
  SEER_CHECK(longest <= model.transformer->max_context(),
             "--lengths: {} is longer than the context of {} tokens; raise it with --max-context", longest,
             model.transformer->max_context());

  std::unique_ptr<Gate> gate;
  std::string gates;
  const bool needs_gate =
      std::any_of(request.settings.begin(), request.settings.end(),
                  [](const PplSetting& setting) { return setting.selector == SelectorKind::kGate; });
  if (needs_gate) {
    gate = std::make_unique<Gate>(load_gate(flags.model, model.config));
    gates = gate_folder(flags.model);
    request.gate_fingerprint = Fingerprint().add_folder(gates).value();
  }

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

  const Json origin = provenance(flags, model, gates);
  request.fingerprint = run_fingerprint(origin, model);
  const std::string members = origin.dump();
  request.provenance = members.substr(1, members.size() - 2);
  std::unique_ptr<SampleLog> log;
  if (const std::string path = samples_path(flags); !path.empty()) log = std::make_unique<SampleLog>(path);

  Json rows = Json::array();
  print_header();
  evaluate_perplexity(*model.transformer, gate.get(), data.documents, request, log.get(), !flags.quiet,
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
  command
      .add_option("--extensions", flags->extensions, "of a folder's files, such as .py,.md (default: all)")
      ->delimiter(',')
      ->allow_extra_args(false);
  const auto list = [&](const char* name, auto& values, const char* text) {
    command.add_option(name, values, text)->delimiter(',')->allow_extra_args(false)->capture_default_str();
  };
  list("--lengths", flags->lengths, "tokens per forward pass, the start token included");
  list("--selectors", flags->selectors, "dense, gate, oracle, local, random");
  command
      .add_option("--rule", flags->rule,
                  "what --values are: adaptive (density), nz_ratio, threshold or top_p")
      ->capture_default_str();
  list("--values", flags->values, "one row per value, for every selector but dense");
  command.add_flag("--last-block-dense", flags->last_block_dense, "the last two block rows attend densely");
  command.add_option("--max-documents", flags->max_documents, "use the first so many (0: all)")
      ->capture_default_str();
  command
      .add_option("--sliding-window", flags->sliding_window,
                  "windows every so many tokens instead of each document's beginning (0: off)")
      ->capture_default_str();
  command.add_option("--results", flags->results,
                     "folder for ppl.json and the finished samples; an interrupted run goes on from there");
  command.add_option("--json", flags->json, "file for the rows; finished samples lie beside it");
  command.add_flag("--quiet", flags->quiet, "no progress on standard error");
  add_gate_flag(command, flags->model);
  add_seed_flag(command, flags->seed);
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.callback([flags] { evaluate(*flags); });
}
