#include "eval/setting.h"

#include <algorithm>

namespace seer {

using Rule = SparsityOptions::Rule;

std::string_view EvalSetting::rule_name() const { return is_dense() ? "dense" : name_of(sparsity.rule); }

std::vector<EvalSetting> eval_settings(std::span<const SelectorKind> selectors, Rule rule,
                                       std::span<const double> values, bool last_block_dense) {
  std::vector<SelectorKind> kinds(selectors.begin(), selectors.end());
  std::sort(kinds.begin(), kinds.end());
  kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
  std::vector<EvalSetting> settings;
  for (const SelectorKind kind : kinds) {
    if (kind == SelectorKind::kDense) {
      settings.push_back({});
      continue;
    }
    for (const double value : values)
      settings.push_back({.selector = kind,
                          .sparsity = {.rule = rule, .value = value, .last_block_dense = last_block_dense}});
  }
  return settings;
}

void add_setting(Fingerprint& fingerprint, const EvalSetting& setting, std::uint64_t gate_fingerprint,
                 std::uint64_t seed) {
  fingerprint.add(name_of(setting.selector));
  if (!setting.is_dense())
    fingerprint.add(setting.rule_name())
        .add(setting.sparsity.value)
        .add(std::uint64_t{setting.sparsity.last_block_dense});
  if (setting.selector == SelectorKind::kGate) fingerprint.add(gate_fingerprint);
  if (setting.selector == SelectorKind::kRandom) fingerprint.add(seed);
}

double prefill_cost(const ModelConfig& config, std::int64_t tokens, const EvalSetting& setting) {
  const auto length = static_cast<double>(tokens);
  const double layer_weights =
      static_cast<double>(config.hidden_size) *
      (2.0 * config.q_size() + 2.0 * config.kv_size() + 3.0 * config.intermediate_size);
  const double weights =
      layer_weights * config.num_layers + static_cast<double>(config.hidden_size * config.vocab_size);
  const bool by_share = setting.sparsity.rule == Rule::kAdaptive || setting.sparsity.rule == Rule::kNzRatio;
  const double density = setting.is_dense()                          ? 1.0
                         : setting.selector == SelectorKind::kOracle ? 2.0
                         : by_share                                  ? setting.sparsity.value
                                                                     : 0.5;
  return length * (weights + density * length * config.q_size() * config.num_layers);
}

void warm_up(Transformer& model, std::span<const std::int32_t> tokens,
             std::span<const std::unique_ptr<Selector>> selectors) {
  constexpr std::size_t kTokens = 512;
  for (const auto& selector : selectors) {
    if (selector == nullptr) continue;
    Sequence sequence = model.new_sequence();
    model.prefill(sequence,
                  {.tokens = tokens.first(std::min(tokens.size(), kTokens)), .selector = selector.get()});
  }
}

}  // namespace seer
