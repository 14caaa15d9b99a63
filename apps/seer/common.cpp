#include "common.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "core/check.h"
#include "io/tensor_file.h"

namespace fs = std::filesystem;
using namespace seer;

namespace {

constexpr const char* kEmbeddedModel = "pico-llama-19m";
constexpr const char* kEmbeddedGates = "pico-llama-19m-gates";

/// Where the embedded models lie: $SEER_MODELS, an installation's share folder, or the source tree.
fs::path models_folder() {
  if (const char* named = std::getenv("SEER_MODELS"); named != nullptr && *named != '\0') return named;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path installed = program.parent_path().parent_path() / "share" / "seer" / "models";
  return fs::is_directory(installed, ignored) ? installed : fs::path(SEER_SOURCE_MODELS);
}

bool is_embedded(const std::string& folder) {
  std::error_code error;
  return fs::equivalent(folder, models_folder() / kEmbeddedModel, error);
}

/// What a message can show on one line: bytes outside printable ASCII become '?'.
std::string printable(std::string_view text) {
  std::string shown(text);
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return shown;
}

}  // namespace

void add_model_argument(CLI::App& command, ModelFlags& flags) {
  command.add_option("MODEL", flags.model,
                     "Hugging Face model folder (default: the embedded pico-llama-19m)");
}

void add_execution_flags(CLI::App& command, ModelFlags& flags) {
  command.add_option("--device", flags.device, "cpu or cuda")->capture_default_str();
  command
      .add_option("--dtype", flags.dtype,
                  "float32 (CPU), float16 (GPU), bfloat16 (KV cache, and products where the CPU has them) or "
                  "auto (bfloat16; on the GPU float16 for F16 weights)")
      ->capture_default_str();
  command.add_option("--threads", flags.threads, "threads (default: one per core)")
      ->check(CLI::Range(1, 1024));
}

void add_context_flag(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--max-context", flags.max_context,
                  "longest sequence in tokens (default: the model's max_position_embeddings)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
}

void add_gate_flag(CLI::App& command, ModelFlags& flags) {
  command.add_option("--gate", flags.gate,
                     "gate folder (default: the embedded gates where the model is the embedded one)");
}

void add_seed_flag(CLI::App& command, std::uint64_t& seed) {
  command.add_option("--seed", seed, "seed of everything random")->capture_default_str();
}

std::string model_folder(const ModelFlags& flags) {
  const std::string folder = flags.model.empty() ? (models_folder() / kEmbeddedModel).string() : flags.model;
  SEER_CHECK(fs::exists(folder), "MODEL: no such folder: {}", folder);
  SEER_CHECK(fs::is_directory(folder), "MODEL: expected a Hugging Face model folder, found a file: {}",
             folder);
  return folder;
}

std::string gate_folder(const ModelFlags& flags) {
  if (!flags.gate.empty()) {
    SEER_CHECK(fs::is_directory(flags.gate), "--gate: no such folder: {}", flags.gate);
    return flags.gate;
  }
  const fs::path embedded = models_folder() / kEmbeddedGates;
  return is_embedded(model_folder(flags)) && fs::is_directory(embedded) ? embedded.string() : std::string();
}

Gate load_gate(const ModelFlags& flags, const ModelConfig& config) {
  const std::string folder = gate_folder(flags);
  SEER_CHECK(!folder.empty(),
             "--gate: {} has no gates of its own; name a gate folder, or train one with "
             "seer distill",
             model_folder(flags));
  return seer::load_gate(folder, config);
}

LoadedModel load_model(const ModelFlags& flags) {
  LoadedModel model{.folder = model_folder(flags)};
  model.config = load_model_config(model.folder);
  model.transformer = load_transformer(model.folder, model.config, flags);
  return model;
}

void add_sparsity_flags(CLI::App& command, SparsityFlags& flags, const std::string& top_p_flag) {
  command.add_option(
      "--selector", flags.selector,
      "gate, oracle, local, random or dense (default: gate where an amount is given, else dense)");
  CLI::Option_group& amount = *command.add_option_group("amount", "How much attention is computed; one of");
  amount.add_option("--density", flags.density, "share of the causal blocks, by the gate's calibration");
  amount.add_option("--threshold", flags.threshold, "blocks whose predicted share of a row exceeds this");
  amount.add_option(top_p_flag, flags.top_p, "fewest blocks whose predicted shares of a row reach this");
  amount.add_option("--nz-ratio", flags.nz_ratio, "top-k per row, as the reference implementation counts");
  amount.require_option(0, 1);
  command.add_flag("--last-block-dense", flags.last_block_dense, "the last two block rows attend densely");
}

ChosenSelector choose_selector(const SparsityFlags& flags, const ModelFlags& model_flags,
                               const ModelConfig& config, std::uint64_t seed) {
  using Rule = SparsityOptions::Rule;
  ChosenSelector chosen;
  chosen.sparsity.last_block_dense = flags.last_block_dense;
  bool amount_given = false;
  const auto take = [&](const std::optional<double>& value, Rule rule, const char* flag, bool zero_allowed) {
    if (!value) return;
    SEER_CHECK((*value > 0 || (zero_allowed && *value == 0)) && *value <= 1,
               "{}: expected {} 0 and at most 1, found {}", flag, zero_allowed ? "at least" : "more than",
               *value);
    chosen.sparsity.rule = rule;
    chosen.sparsity.value = *value;
    amount_given = true;
  };
  take(flags.density, Rule::kAdaptive, "--density", false);
  take(flags.threshold, Rule::kThreshold, "--threshold", true);
  take(flags.top_p, Rule::kTopP, "top-p mass", false);
  take(flags.nz_ratio, Rule::kNzRatio, "--nz-ratio", false);

  if (flags.selector.empty()) {
    chosen.kind = amount_given ? SelectorKind::kGate : SelectorKind::kDense;
  } else {
    chosen.kind = parse_selector_kind(flags.selector);
  }
  if (chosen.kind == SelectorKind::kDense) {
    SEER_CHECK(model_flags.gate.empty() || !flags.selector.empty(),
               "--gate: expected an amount beside it (--density, --threshold, --nz-ratio or a top-p mass)");
    SEER_CHECK(!amount_given, "--selector dense: computes every block; leave out the amount");
    return chosen;
  }
  SEER_CHECK(amount_given,
             "--selector {}: expected an amount (--density, --threshold, --nz-ratio or a top-p "
             "mass)",
             flags.selector);
  if (chosen.kind == SelectorKind::kGate) {
    chosen.gate = std::make_unique<Gate>(load_gate(model_flags, config));
    chosen.gate_folder = gate_folder(model_flags);
  }
  chosen.selector = make_selector(chosen.kind, chosen.sparsity, config, chosen.gate.get(), seed);
  return chosen;
}

void check_utf8(std::string_view text, const std::string& label) {
  if (const auto bad = find_invalid_utf8(text)) fail("{}: invalid UTF-8 at byte {}", label, *bad);
}

std::vector<std::int32_t> parse_ids(std::string_view text, const std::string& label) {
  constexpr std::string_view kSeparators = " \t\r\n,[]";
  std::vector<std::int32_t> ids;
  for (std::size_t begin = text.find_first_not_of(kSeparators); begin != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kSeparators, begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    std::int32_t id = -1;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    SEER_CHECK(error == std::errc() && stop == word.data() + word.size() && id >= 0,
               "{}: expected token ids, found \"{}\"", label, printable(word.substr(0, 40)));
    ids.push_back(id);
    begin = text.find_first_not_of(kSeparators, end);
  }
  SEER_CHECK(!ids.empty(), "{}: expected token ids, found none", label);
  return ids;
}

std::vector<std::int32_t> read_ids(const std::string& path) {
  if (!path.ends_with(".safetensors")) return parse_ids(read_file(path), path);
  const TensorStore store = TensorStore::open_safetensors(path);
  const TensorView& tensor = store.get("input_ids");
  std::vector<std::int32_t> ids;
  if (tensor.dtype == DType::kI32) {
    const auto values = tensor.as<std::int32_t>();
    ids.assign(values.begin(), values.end());
  } else {
    SEER_CHECK(tensor.dtype == DType::kI64, "{}: tensor input_ids: expected I32 or I64, found {}", path,
               name_of(tensor.dtype));
    for (const std::int64_t id : tensor.as<std::int64_t>()) {
      SEER_CHECK(id >= 0 && id <= std::numeric_limits<std::int32_t>::max(),
                 "{}: tensor input_ids: expected token ids, found {}", path, id);
      ids.push_back(static_cast<std::int32_t>(id));
    }
  }
  SEER_CHECK(!ids.empty(), "{}: tensor input_ids: expected token ids, found none", path);
  return ids;
}

void TextFlags::check() const {
  SEER_CHECK(text_file.empty() != ids_file.empty(), "expected one of --text-file and --ids, found {}",
             text_file.empty() ? "none" : "both");
}

std::vector<std::int32_t> TextFlags::read(const std::string& model_folder) const {
  if (!ids_file.empty()) return read_ids(ids_file);
  const std::string text = read_file(text_file);
  SEER_CHECK(!text.empty(), "{}: expected a text, found an empty file", text_file);
  check_utf8(text, text_file);
  return Tokenizer::load(model_folder).encode(text, !without_special);
}

void add_text_flags(CLI::App& command, TextFlags& flags) {
  command.add_option("--text-file", flags.text_file, "the text");
  command.add_option("--ids", flags.ids_file,
                     "the text as ids: a text file of integers, or safetensors `input_ids`");
  command.add_flag("--no-special-tokens", flags.without_special,
                   "leave out the start token that the tokenizer adds");
}

std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!text.empty() && text.back() == '\0') text.pop_back();
  std::string line;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\0', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    if (begin == 0) word = fs::path(word).filename().string();
    const bool plain = !word.empty() && word.find_first_of(" \t\n\"'\\$&;|<>()*?`#") == std::string::npos;
    line += (begin == 0 ? "" : " ") + (plain ? word : "'" + word + "'");
    begin = end + 1;
  }
  return line;
}

void write_json_file(const std::string& path, const std::string& json) {
  std::ofstream file(path);
  file << json << '\n';
  file.close();
  SEER_CHECK(file.good(), "--json {}: cannot write", path);
}
