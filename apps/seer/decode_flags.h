// Flags of sparse decoding, and what they resolve to.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common.h"
#include "model/decode_selector.h"

/// --decode-gate; one of --token-budget and --decode-threshold; --decode-reference-rope.
struct DecodeFlags {
  std::string gate;
  std::optional<std::int64_t> token_budget;
  std::optional<double> threshold;
  bool reference_rope = false;
};
void add_decode_flags(CLI::App& command, DecodeFlags& flags);

/// How to decode; without flags of sparse decoding: dense.
struct ChosenDecode {
  std::unique_ptr<seer::DecodeGate> gate;
  seer::DecodeSparsity sparsity;
};

/// Where --gate names a decode gate's folder, it and --threshold are decoding's and are taken out of the
/// prefill's flags. Throws Error when a gate comes without an amount or the other way round, for amounts out
/// of range, and when a prefill's amount stands beside a decode gate named by --gate.
ChosenDecode choose_decode(DecodeFlags flags, ModelFlags& model_flags, SparsityFlags& prefill,
                           const seer::ModelConfig& config);
