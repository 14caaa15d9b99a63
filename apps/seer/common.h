// Flags that several subcommands share, and what they resolve to.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/load.h"
#include "core/context.h"
#include "io/tokenizer.h"
#include "model/selector.h"
#include "model/transformer.h"

namespace CLI {
class App;
}

/// MODEL, --gate, --device, --dtype, --threads, --max-context.
struct ModelFlags : seer::ModelOptions {
  std::string model;  // empty: the embedded model
  std::string gate;   // empty: the embedded model's gates, if that is the model
};
void add_model_argument(CLI::App& command, ModelFlags& flags);
void add_execution_flags(CLI::App& command, ModelFlags& flags);  ///< --device, --dtype, --threads
void add_context_flag(CLI::App& command, ModelFlags& flags);     ///< --max-context
void add_gate_flag(CLI::App& command, ModelFlags& flags);        ///< --gate
void add_seed_flag(CLI::App& command, std::uint64_t& seed);      ///< --seed

/// The model folder: MODEL, or the embedded model. Throws Error when there is no such folder.
std::string model_folder(const ModelFlags& flags);
/// The gate folder: --gate, or the embedded gates for the embedded model where they exist, or an empty
/// string.
std::string gate_folder(const ModelFlags& flags);
/// Loads gate_folder(); throws Error, saying how to name one, when there is none.
seer::Gate load_gate(const ModelFlags& flags, const seer::ModelConfig& config);

/// A model ready to run. `gate` is empty until wanted.
struct LoadedModel {
  std::string folder;
  seer::ModelConfig config;
  std::unique_ptr<seer::Transformer> transformer;
};
LoadedModel load_model(const ModelFlags& flags);

/// --selector, and one of --density, --threshold, --top-p, --nz-ratio; --last-block-dense.
struct SparsityFlags {
  std::string selector;  // empty: gate when an amount is given, else dense
  std::optional<double> density, threshold, top_p, nz_ratio;
  bool last_block_dense = false;
};
/// `top_p_flag` is another name where --top-p means sampling.
void add_sparsity_flags(CLI::App& command, SparsityFlags& flags, const std::string& top_p_flag = "--top-p");

/// The selector that the flags ask for; `gate` is loaded where it needs one and must outlive it.
struct ChosenSelector {
  seer::SelectorKind kind = seer::SelectorKind::kDense;
  seer::SparsityOptions sparsity;
  std::unique_ptr<seer::Gate> gate;
  std::unique_ptr<seer::Selector> selector;  // nullptr: dense
  std::string gate_folder;
};
ChosenSelector choose_selector(const SparsityFlags& flags, const ModelFlags& model_flags,
                               const seer::ModelConfig& config, std::uint64_t seed);

/// Throws Error naming `label` and the first byte that is no UTF-8.
void check_utf8(std::string_view text, const std::string& label);

/// Integers separated by white space or commas. Throws Error naming `label` and the offending word.
std::vector<std::int32_t> parse_ids(std::string_view text, const std::string& label);
/// An ids file: text as above, or safetensors with a tensor `input_ids` (I32 or I64).
std::vector<std::int32_t> read_ids(const std::string& path);

/// One text as the command line gives it: --text-file or --ids, and --no-special-tokens.
struct TextFlags {
  std::string text_file, ids_file;
  bool without_special = false;

  void check() const;  ///< throws Error unless one of the two files is named
  const std::string& path() const { return text_file.empty() ? ids_file : text_file; }
  /// Token ids; a text is encoded by the tokenizer of `model_folder`.
  std::vector<std::int32_t> read(const std::string& model_folder) const;
};
void add_text_flags(CLI::App& command, TextFlags& flags);

/// Writes a benchmark's results, --json, with a line end. Throws Error when it cannot.
void write_json_file(const std::string& path, const std::string& json);

/// The command line as it was typed, for records of results.
std::string command_line();
