#include "eval_common.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "eval/sample_log.h"

using namespace seer;
using Json = nlohmann::ordered_json;

template <class T>
void add_list_option(CLI::App& command, const char* name, std::vector<T>& values, const std::string& text) {
  command.add_option(name, values, text)->delimiter(',')->allow_extra_args(false)->capture_default_str();
}
template void add_list_option(CLI::App&, const char*, std::vector<std::string>&, const std::string&);
template void add_list_option(CLI::App&, const char*, std::vector<double>&, const std::string&);
template void add_list_option(CLI::App&, const char*, std::vector<std::int64_t>&, const std::string&);

void add_eval_flags(CLI::App& command, EvalFlags& flags, const std::string& rows_file) {
  add_list_option(command, "--selectors", flags.selectors, "dense, gate, oracle, local, random");
  command
      .add_option("--rule", flags.rule, "what --values are: adaptive (density), nz_ratio, threshold or top_p")
      ->capture_default_str();
  add_list_option(command, "--values", flags.values, "one row per value, for every selector but dense");
  command.add_flag("--last-block-dense,!--no-last-block-dense", flags.last_block_dense,
                   fmt::format("the last two block rows attend densely (default: {})",
                               flags.last_block_dense ? "yes" : "no"));
  command.add_option(
      "--results", flags.results,
      fmt::format("folder for {} and the finished samples; an interrupted run goes on from there",
                  rows_file));
  command.add_flag("--quiet", flags.quiet, "no progress on standard error");
  add_gate_flag(command, flags.model);
  add_seed_flag(command, flags.seed);
  add_execution_flags(command, flags.model);
  add_context_flag(command, flags.model);
}

std::vector<EvalSetting> settings_of(const EvalFlags& flags) {
  std::vector<SelectorKind> selectors;
  for (const std::string& name : flags.selectors) selectors.push_back(parse_selector_kind(name));
  const SparsityOptions::Rule rule = parse_rule(flags.rule);
  for (const double value : flags.values)
    SEER_CHECK(value >= 0 && value <= 1 && (value > 0 || rule == SparsityOptions::Rule::kThreshold),
               "--values: expected more than 0 and at most 1, found {}", value);
  return eval_settings(selectors, rule, flags.values, flags.last_block_dense);
}

EvalGate load_eval_gate(const EvalFlags& flags, const LoadedModel& model,
                        const std::vector<EvalSetting>& settings) {
  EvalGate gate;
  const bool needed = std::any_of(settings.begin(), settings.end(), [](const EvalSetting& setting) {
    return setting.selector == SelectorKind::kGate;
  });
  if (!needed) return gate;
  gate.gate = std::make_unique<Gate>(load_gate(flags.model, model.config));
  gate.folder = gate_folder(flags.model);
  gate.fingerprint = Fingerprint().add_folder(gate.folder).value();
  return gate;
}

Json provenance(const EvalFlags& flags, const LoadedModel& model, const EvalGate& gate) {
  const Context& context = model.transformer->context();
  return {{"version", SEER_VERSION},
          {"command", command_line()},
          {"model", model.folder},
          {"gate", gate.folder.empty() ? Json() : Json(gate.folder)},
          {"data", flags.data},
          {"dtype", dtype_name(model.transformer->device(), model.transformer->options())},
          {"device", flags.model.device},
          {"isa", name_of(context.isa())},
          {"threads", context.num_threads()},
          {"seed", flags.seed}};
}

Json generation_row(Json subject, const EvalSetting& setting, double score, const GenerationSummary& summary,
                    const Json& origin) {
  subject.update({{"selector", name_of(setting.selector)},
                  {"rule", setting.rule_name()},
                  {"value", setting.sparsity.value},
                  {"score", score},
                  {"density", summary.density},
                  {"samples", summary.samples},
                  {"failed", summary.failed},
                  {"empty_predictions", summary.empty_predictions},
                  {"ttft_seconds", summary.ttft_seconds},
                  {"select_seconds", summary.select_seconds},
                  {"attention_seconds", summary.attention_seconds},
                  {"last_block_dense", setting.sparsity.last_block_dense}});
  subject.update(origin);
  return subject;
}

std::string members_of(const Json& object) {
  const std::string text = object.dump();
  return text.substr(1, text.size() - 2);
}

std::uint64_t run_fingerprint(const std::string& evaluation, const Json& origin, const LoadedModel& model) {
  Fingerprint fingerprint;
  fingerprint.add(evaluation).add_file("/proc/self/exe").add_folder(model.folder);
  for (const char* name : {"dtype", "device", "isa", "threads"}) fingerprint.add(origin[name].dump());
  return fingerprint.value();
}
