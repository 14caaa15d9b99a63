// What every evaluation varies: a selector and how much it computes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "eval/sample_log.h"
#include "model/gate.h"
#include "model/selector.h"
#include "model/transformer.h"

namespace seer {

/// A selector and an amount; one row of an evaluation's table.
struct EvalSetting {
  SelectorKind selector = SelectorKind::kDense;
  SparsityOptions sparsity;

  bool is_dense() const { return selector == SelectorKind::kDense; }
  /// local or random: blocks that do not depend on what the tokens are.
  bool is_baseline() const { return selector == SelectorKind::kLocal || selector == SelectorKind::kRandom; }
  /// "dense" for the dense selector, else the rule that was asked for.
  std::string_view rule_name() const;
};

/// The settings of lists of selectors and values, in the order dense, gate, oracle, local, random.
std::vector<EvalSetting> eval_settings(std::span<const SelectorKind> selectors, SparsityOptions::Rule rule,
                                       std::span<const double> values, bool last_block_dense);

/// Adds all of a setting that decides about a sample's numbers; the gate's files and the seed count where
/// they matter.
void add_setting(Fingerprint& fingerprint, const EvalSetting& setting, std::uint64_t gate_fingerprint,
                 std::uint64_t seed);

/// Relative time of a prefill, for estimates of the time left: projections, then attention.
double prefill_cost(const ModelConfig& config, std::int64_t tokens, const EvalSetting& setting);

/// Runs the beginning of a prompt through every selector (nullptr: left out), which brings weights into
/// memory and wakes the threads, so that the first sample's time is like the others'.
void warm_up(Transformer& model, std::span<const std::int32_t> tokens,
             std::span<const std::unique_ptr<Selector>> selectors);

}  // namespace seer
