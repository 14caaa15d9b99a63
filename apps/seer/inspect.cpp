// seer inspect: what a selector keeps of one prompt's attention.
#include "eval/inspect.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "commands.h"
#include "core/check.h"
#include "core/progress.h"
#include "eval_common.h"
#include "io/tensor_file.h"

using namespace seer;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

struct Flags : EvalFlags {
  TextFlags text;
  std::int64_t tokens = 0;
  std::vector<double> densities;
  std::vector<std::int64_t> layers, heads;
  std::string html, json, masks;
};

/// Up to this many layers and heads have their maps in the page when none are named.
constexpr int kShown = 8;

/// The named numbers, or up to kShown of 0 .. count - 1, evenly spread from the first to the last.
std::vector<int> chosen(const std::vector<std::int64_t>& named, int count, const char* flag) {
  std::vector<int> numbers;
  for (const std::int64_t number : named) {
    SEER_CHECK(number >= 0 && number < count, "{}: expected numbers from 0 to {}, found {}", flag, count - 1,
               number);
    if (std::find(numbers.begin(), numbers.end(), number) == numbers.end())
      numbers.push_back(static_cast<int>(number));
  }
  std::sort(numbers.begin(), numbers.end());
  if (!numbers.empty()) return numbers;
  numbers.resize(static_cast<std::size_t>(std::min(count, kShown)));
  std::iota(numbers.begin(), numbers.end(), 0);
  if (count > kShown)
    for (int& number : numbers) number = number * (count - 1) / (kShown - 1);
  return numbers;
}

std::vector<std::int32_t> read_tokens(const Flags& flags, const LoadedModel& model) {
  std::vector<std::int32_t> tokens = flags.text.read(model.folder);
  const auto count = static_cast<std::int64_t>(tokens.size());
  SEER_CHECK(flags.tokens <= count, "--tokens: expected at most the {} tokens of {}, found {}", count,
             flags.text.path(), flags.tokens);
  if (flags.tokens > 0) tokens.resize(static_cast<std::size_t>(flags.tokens));
  for (const std::int32_t id : tokens)
    SEER_CHECK(id < model.config.vocab_size, "{}: token id {} is outside the model's vocabulary of {}",
               flags.text.path(), id, model.config.vocab_size);
  return tokens;
}

std::vector<std::pair<std::string, std::string>> facts_of(const Json& origin) {
  std::vector<std::pair<std::string, std::string>> facts;
  for (const auto& [key, value] : origin.items())
    if (!value.is_null())
      facts.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  return facts;
}

void run(Flags flags) {
  flags.text.check();
  flags.data = flags.text.path();
  if (!flags.densities.empty()) flags.values = flags.densities;
  const std::vector<EvalSetting> settings = settings_of(flags);
  SEER_CHECK(flags.masks.empty() || settings.size() == 1,
             "--save-masks: expected one selector and one value, found {} settings", settings.size());
  const LoadedModel model = load_model(flags.model);
  const EvalGate gate = load_eval_gate(flags, model, settings);
  const std::vector<std::int32_t> tokens = read_tokens(flags, model);

  Progress progress("inspect", static_cast<double>(tokens.size()), !flags.quiet);
  const Inspection inspection =
      inspect(*model.transformer, gate.gate.get(),
              {.tokens = tokens,
               .settings = settings,
               .layers = chosen(flags.layers, model.config.num_layers, "--layers"),
               .heads = chosen(flags.heads, model.config.num_heads, "--heads"),
               .seed = flags.seed,
               .on_progress = [&](std::int64_t done) { progress.update(static_cast<double>(done)); }});

  const Json origin = provenance(flags, model, gate);
  if (!flags.html.empty()) write_file_atomically(flags.html, inspect_html(inspection, facts_of(origin)));
  if (!flags.json.empty()) write_file_atomically(flags.json, inspect_json(inspection, members_of(origin)));
  if (!flags.masks.empty()) save_masks(inspection.settings.front(), flags.masks);
  fmt::print("{}", inspect_table(inspection));
}

}  // namespace

void add_inspect(CLI::App& parent) {
  auto flags = std::make_shared<Flags>();
  flags->selectors = {"gate"};
  flags->values = {0.2, 0.1};
  CLI::App& command = *parent.add_subcommand(
      "inspect", "Masks beside the true attention maps of one prompt; recall and density by layer and head");
  add_model_argument(command, flags->model);
  add_text_flags(command, flags->text);
  command.add_option("--tokens", flags->tokens, "look at the first so many tokens (default: all)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  add_list_option(command, "--selectors", flags->selectors, "gate, oracle, local, random");
  CLI::Option& rule = *command
                           .add_option("--rule", flags->rule,
                                       "what --values are: adaptive (density), nz_ratio, threshold or top_p")
                           ->capture_default_str();
  add_list_option(command, "--values", flags->values, "one mask per value");
  add_list_option(command, "--density", flags->densities, "short for --rule adaptive --values");
  command.get_option("--density")->excludes(&rule)->excludes(command.get_option("--values"));
  command.add_flag("--last-block-dense", flags->last_block_dense, "the last two block rows attend densely");
  add_list_option(command, "--layers", flags->layers,
                  "layers whose maps are in the page (default: up to 8, evenly spread)");
  add_list_option(command, "--heads", flags->heads,
                  "heads of these layers (default: up to 8, evenly spread)");
  command.add_option("--out", flags->html, "web page with maps, masks and figures");
  command.add_option("--json", flags->json, "file of one row per setting, for seer report");
  command.add_option("--save-masks", flags->masks,
                     "folder for the masks of one setting, layer by layer, as the benchmarks read them");
  command.add_flag("--quiet", flags->quiet, "no progress on standard error");
  add_gate_flag(command, flags->model);
  add_seed_flag(command, flags->seed);
  add_execution_flags(command, flags->model);
  add_context_flag(command, flags->model);
  command.callback([flags] { run(*flags); });
}
