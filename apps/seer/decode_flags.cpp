#include "decode_flags.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <utility>

#include "core/check.h"

using namespace seer;

void add_decode_flags(CLI::App& command, DecodeFlags& flags) {
  CLI::Option_group& group =
      *command.add_option_group("decoding", "Which blocks a decoded token reads (default: all)");
  group.add_option("--decode-gate", flags.gate,
                   "decode gate folder; may be given as --gate where prefill is dense");
  CLI::Option* budget = group.add_option(
      "--token-budget", flags.token_budget,
      "tokens of context that a decoded token reads, in whole blocks of 64; the last block is added");
  group
      .add_option("--decode-threshold", flags.threshold,
                  "blocks whose predicted share of a token's attention exceeds this")
      ->excludes(budget);
  group.add_flag("--decode-reference-rope", flags.reference_rope,
                 "rotate blocks that fill up while decoding as the reference implementation does: at their "
                 "last token's position");
}

namespace {

/// Moves what --gate and --threshold say of a decode gate to decoding's flags.
void take_decode_gate(DecodeFlags& flags, ModelFlags& model_flags, SparsityFlags& prefill) {
  if (model_flags.gate.empty() || !is_decode_gate_folder(gate_folder(model_flags))) return;
  SEER_CHECK(flags.gate.empty(),
             "--gate: expected a prefill gate beside --decode-gate, found a decode gate: {}",
             model_flags.gate);
  SEER_CHECK(prefill.selector.empty() && !prefill.density && !prefill.top_p && !prefill.nz_ratio,
             "--gate: {} is a decode gate, which takes --token-budget or --threshold; for a sparse prefill "
             "name that gate with --decode-gate",
             model_flags.gate);
  SEER_CHECK(!prefill.threshold || (!flags.token_budget && !flags.threshold),
             "--threshold: expected one amount for the decode gate {}, found two", model_flags.gate);
  if (prefill.threshold) flags.threshold = std::exchange(prefill.threshold, std::nullopt);
  flags.gate = std::exchange(model_flags.gate, {});
}

}  // namespace

ChosenDecode choose_decode(DecodeFlags flags, ModelFlags& model_flags, SparsityFlags& prefill,
                           const ModelConfig& config) {
  take_decode_gate(flags, model_flags, prefill);
  ChosenDecode chosen;
  const bool amount_given = flags.token_budget || flags.threshold;
  if (flags.gate.empty()) {
    SEER_CHECK(!amount_given && !flags.reference_rope,
               "{}: expected a decode gate beside it (--decode-gate), found {}",
               flags.token_budget ? "--token-budget"
               : flags.threshold  ? "--decode-threshold"
                                  : "--decode-reference-rope",
               model_flags.gate.empty() ? "none" : "a prefill gate: " + model_flags.gate);
    return chosen;
  }
  SEER_CHECK(std::filesystem::is_directory(flags.gate), "--decode-gate: no such folder: {}", flags.gate);
  SEER_CHECK(amount_given,
             "{}: expected an amount beside the decode gate (--token-budget or --decode-threshold)",
             flags.gate);
  chosen.sparsity.reference_rope = flags.reference_rope;
  if (flags.token_budget) {
    chosen.sparsity.rule = DecodeSparsity::Rule::kTokenBudget;
    chosen.sparsity.token_budget = *flags.token_budget;
  } else {
    chosen.sparsity.rule = DecodeSparsity::Rule::kThreshold;
    chosen.sparsity.threshold = *flags.threshold;
  }
  validate(chosen.sparsity);
  chosen.gate = std::make_unique<DecodeGate>(load_decode_gate(flags.gate, config));
  chosen.sparsity.gate = chosen.gate.get();
  return chosen;
}
