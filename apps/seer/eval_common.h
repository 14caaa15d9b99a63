// What the evaluations share: flags, the settings and the gate that they resolve to, and where results are
// from.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common.h"
#include "eval/generation_eval.h"
#include "eval/setting.h"

/// Flags of every evaluation; the subcommand sets its own defaults before it adds them.
struct EvalFlags {
  ModelFlags model;
  std::string data;
  std::vector<std::string> selectors{"dense", "gate"};
  std::string rule = "adaptive";
  std::vector<double> values{0.5, 0.4, 0.3, 0.2, 0.1};
  bool last_block_dense = false;
  std::uint64_t seed = 0;
  std::string results;
  bool quiet = false;
};

/// --selectors, --rule, --values, --last-block-dense (with a negation), --results, --quiet, --gate, --seed,
/// and the flags of execution and context. MODEL and --data are the subcommand's.
void add_eval_flags(CLI::App& command, EvalFlags& flags, const std::string& rows_file);

/// An option that takes a list with commas.
template <class T>
void add_list_option(CLI::App& command, const char* name, std::vector<T>& values, const std::string& text);

/// Throws Error naming the flag that is out of its range.
std::vector<seer::EvalSetting> settings_of(const EvalFlags& flags);

/// The gate, loaded where a setting needs one, and a hash of its files.
struct EvalGate {
  std::unique_ptr<seer::Gate> gate;
  std::string folder;
  std::uint64_t fingerprint = 0;
};
EvalGate load_eval_gate(const EvalFlags& flags, const LoadedModel& model,
                        const std::vector<seer::EvalSetting>& settings);

/// What every record carries beside its numbers.
nlohmann::ordered_json provenance(const EvalFlags& flags, const LoadedModel& model, const EvalGate& gate);
/// A row of an evaluation that generates: first `subject`, what it is about, last `origin`, its provenance().
nlohmann::ordered_json generation_row(nlohmann::ordered_json subject, const seer::EvalSetting& setting,
                                      double score, const seer::GenerationSummary& summary,
                                      const nlohmann::ordered_json& origin);
/// An object's members without braces, as logs carry them.
std::string members_of(const nlohmann::ordered_json& object);

/// Everything but the text, the selector and its value that a sample's numbers depend on.
std::uint64_t run_fingerprint(const std::string& evaluation, const nlohmann::ordered_json& origin,
                              const LoadedModel& model);
