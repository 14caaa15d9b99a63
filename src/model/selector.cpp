#include "model/selector.h"

#include <array>

#include "core/check.h"
#include "model/selector_impl.h"

namespace seer {
namespace {

using Rule = SparsityOptions::Rule;

constexpr std::array<std::pair<SelectorKind, std::string_view>, 5> kKinds{
    {{SelectorKind::kDense, "dense"},
     {SelectorKind::kGate, "gate"},
     {SelectorKind::kOracle, "oracle"},
     {SelectorKind::kLocal, "local"},
     {SelectorKind::kRandom, "random"}}};
constexpr std::array<std::pair<Rule, std::string_view>, 5> kRules{{{Rule::kAdaptive, "adaptive"},
                                                                   {Rule::kNzRatio, "nz_ratio"},
                                                                   {Rule::kThreshold, "threshold"},
                                                                   {Rule::kTopP, "top_p"},
                                                                   {Rule::kResidual, "residual"}}};

template <class Table>
auto parse_name(const Table& table, std::string_view name, std::string_view what) {
  std::string names;
  for (const auto& [value, known] : table) {
    if (known == name) return value;
    names += (names.empty() ? "" : ", ") + std::string(known);
  }
  fail("{}: expected one of {}, found \"{}\"", what, names, name);
}

template <class Table, class Value>
std::string_view find_name(const Table& table, Value value) {
  for (const auto& [known, name] : table)
    if (known == value) return name;
  return "";
}

class DenseSelector final : public Selector {
 public:
  void begin(std::int64_t) override {}
  bool select(const Context&, const SelectInput&, BlockMask&) override { return false; }
};

/// Sink + local and random: their blocks do not depend on what the tokens are.
class BaselineSelector final : public Selector {
 public:
  explicit BaselineSelector(const SelectorSettings& settings) : settings_(settings) {
    const Rule rule = settings.sparsity.rule;
    SEER_CHECK(rule == Rule::kAdaptive || rule == Rule::kNzRatio,
               "selector {}: expected a density or an nz_ratio, found the rule {}", name_of(settings.kind),
               name_of(rule));
  }

  void begin(std::int64_t total_tokens) override { params_ = settings_.resolve(total_tokens); }

  bool select(const Context&, const SelectInput& input, BlockMask& mask) override {
    if (params_.rule == SelectRule::kDense) return false;
    if (settings_.kind == SelectorKind::kLocal)
      select_sink_local(params_, mask);
    else
      select_random(params_, settings_.seed, input.layer, mask);
    return true;
  }

 private:
  SelectorSettings settings_;
  SelectParams params_;
};

}  // namespace

SelectorKind parse_selector_kind(std::string_view name) { return parse_name(kKinds, name, "selector"); }
std::string_view name_of(SelectorKind kind) { return find_name(kKinds, kind); }
SparsityOptions::Rule parse_rule(std::string_view name) { return parse_name(kRules, name, "rule"); }
std::string_view name_of(SparsityOptions::Rule rule) { return find_name(kRules, rule); }

SelectParams SelectorSettings::resolve(std::int64_t total_tokens) const {
  SelectParams params{.value = sparsity.value,
                      .last_block_dense = sparsity.last_block_dense,
                      .total_blocks = blocks_for(total_tokens)};
  const bool is_baseline = kind == SelectorKind::kLocal || kind == SelectorKind::kRandom;
  Rule rule = sparsity.rule;
  if (rule == Rule::kAdaptive && is_baseline) rule = Rule::kNzRatio;
  if (rule == Rule::kAdaptive && kind == SelectorKind::kOracle) rule = Rule::kThreshold;
  const bool by_share = sparsity.rule == Rule::kAdaptive || sparsity.rule == Rule::kNzRatio;
  if (kind == SelectorKind::kDense || (by_share && sparsity.value >= 1)) return params;
  switch (rule) {
    case Rule::kAdaptive:
      SEER_CHECK(
          gate != nullptr && gate->calibration.has_value(),
          "the gate folder has no calibration.json, which a density needs; run `seer calibrate`, or ask for "
          "a threshold, a top-p mass or an nz_ratio");
      params.rule = gate->calibration->rule;
      params.value = gate->calibration->threshold_for(sparsity.value, total_tokens);
      return params;
    case Rule::kNzRatio:
      params.rule = SelectRule::kNzRatio;
      return params;
    case Rule::kThreshold:
      params.rule = SelectRule::kThreshold;
      return params;
    case Rule::kTopP:
      params.rule = SelectRule::kTopP;
      return params;
    case Rule::kResidual:
      params.rule = SelectRule::kResidual;
      return params;
  }
  fail("selector: unknown rule {}", static_cast<int>(rule));
}

namespace {

std::unique_ptr<Selector> make(const SelectorSettings& settings, const ModelConfig& model) {
  switch (settings.kind) {
    case SelectorKind::kDense:
      return std::make_unique<DenseSelector>();
    case SelectorKind::kGate:
      SEER_CHECK(settings.gate != nullptr, "selector gate: expected a gate folder (--gate), found none");
      return make_gate_selector(settings, model);
    case SelectorKind::kOracle:
      return make_oracle_selector(settings, model);
    case SelectorKind::kLocal:
    case SelectorKind::kRandom:
      return std::make_unique<BaselineSelector>(settings);
  }
  fail("selector: unknown kind {}", static_cast<int>(settings.kind));
}

}  // namespace

std::unique_ptr<Selector> make_selector(SelectorKind kind, const SparsityOptions& options,
                                        const ModelConfig& model, const Gate* gate, std::uint64_t seed) {
  SEER_CHECK(options.value >= 0 && (options.value <= 1 || options.rule == Rule::kThreshold),
             "{}: expected a value between 0 and 1, found {}", name_of(options.rule), options.value);
  const SelectorSettings settings{.kind = kind, .sparsity = options, .gate = gate, .seed = seed};
  std::unique_ptr<Selector> selector = make(settings, model);
  selector->settings = settings;
  return selector;
}

}  // namespace seer
