// seer bench model: times prefill (dense and sparse) and decode of a model, with the stages and the memory.
#include "bench_model.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "model/cpu_transformer.h"
#include "model/shapes.h"

using namespace seer;

namespace {

using Clock = std::chrono::steady_clock;

using Flags = BenchModelFlags;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Seconds of repeated runs. Rates come from the least: what the machine does when nothing else disturbs it.
struct Timing {
  double least = 0;
  double median = 0;
};

Timing summary(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

/// The value of a line like "VmHWM:  1234 kB" or "model name : ..." in a file of /proc; empty if absent.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == std::string::npos ? std::string() : line.substr(begin);
  }
  return {};
}

double weight_mebibytes(const std::string& folder) {
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  return static_cast<double>(bytes) / (1 << 20);
}

double peak_mebibytes() {
  const std::string value = proc_value("/proc/self/status", "VmHWM");
  return value.empty() ? 0 : std::stod(value) / 1024;
}

double kv_mebibytes(const Transformer& model, std::int64_t tokens) {
  const ModelConfig& config = model.config();
  return static_cast<double>(
             blocks_for(tokens) * config.num_layers *
             PagedKv::page_bytes(model.options().kv_dtype, config.num_kv_heads, config.head_dim)) /
         (1 << 20);
}

nlohmann::json bench_prefill(const Flags& flags, Transformer& model, std::int64_t length, double density) {
  SparsityFlags sparsity;
  if (density < 1) {
    sparsity.selector = flags.selector;
    sparsity.density = density;
  }
  const ChosenSelector chosen = choose_selector(sparsity, flags.model, model.config(), 1);
  const std::vector<std::int32_t> ids = bench_ids(length, model.config().vocab_size);
  std::vector<double> seconds;
  PrefillStats best;
  for (int run = 0; run <= flags.repeats; ++run) {
    Sequence sequence = model.new_sequence();
    const PrefillStats stats =
        model.prefill(sequence, {.tokens = ids, .selector = chosen.selector.get()}).stats;
    if (run == 0) continue;  // warm-up
    if (seconds.empty() || stats.seconds < best.seconds) best = stats;
    seconds.push_back(stats.seconds);
  }
  const Timing timing = summary(seconds);
  const double select = best.select_seconds / best.seconds, attention = best.attention_seconds / best.seconds;
  const double rate = static_cast<double>(length) / timing.least;
  fmt::print("{:<8} {:>7} {:>8.3f} {:>10.1f} {:>10.1f} {:>11.1f} {:>7.1f}% {:>9.1f}% {:>6.1f}%\n", "prefill",
             length, best.density(), timing.least * 1e3, timing.median * 1e3, rate, select * 100,
             attention * 100, (1 - select - attention) * 100);
  std::fflush(stdout);
  return {{"stage", "prefill"},        {"tokens", length},         {"density_wanted", density},
          {"density", best.density()}, {"seconds", timing.median}, {"seconds_least", timing.least},
          {"tokens_per_second", rate}, {"select_share", select},   {"attention_share", attention}};
}

/// Attention of one decoded token in all layers, timed alone.
double decode_attention_seconds(const CpuTransformer& model, const Sequence& sequence, int repeats) {
  const ModelConfig& config = model.config();
  std::vector<float> q(static_cast<std::size_t>(config.q_size()), 0.5f), out(q.size());
  double least = 0;
  for (int run = 0; run < repeats; ++run) {
    const auto start = Clock::now();
    for (int layer = 0; layer < config.num_layers; ++layer) {
      const PagedKv kv = model.layer(sequence, layer);
      attention_decode(model.context(), {.q = q.data(),
                                         .out = out.data(),
                                         .num_heads = config.num_heads,
                                         .scale = 1 / std::sqrt(static_cast<float>(config.head_dim)),
                                         .kv = {&kv, 1}});
    }
    const double seconds = seconds_since(start);
    if (run == 0 || seconds < least) least = seconds;
  }
  return least;
}

nlohmann::json bench_decode(const Flags& flags, CpuTransformer& model, std::int64_t context) {
  Sequence sequence = model.new_sequence();
  const std::vector<std::int32_t> ids = bench_ids(context + flags.decode_tokens, model.config().vocab_size);
  model.prefill(sequence, {.tokens = {ids.data(), static_cast<std::size_t>(context)}});
  std::vector<float> logits(static_cast<std::size_t>(model.config().vocab_size));
  std::vector<double> seconds;
  Sequence* const sequences[] = {&sequence};
  for (int run = 0; run <= flags.repeats; ++run) {
    sequence.truncate(context);
    const auto start = Clock::now();
    for (int i = 0; i < flags.decode_tokens; ++i)
      model.decode(sequences, {ids.data() + context + i, 1}, logits.data());
    if (run > 0) seconds.push_back(seconds_since(start) / flags.decode_tokens);
  }
  const Timing timing = summary(seconds);
  const double attention =
      decode_attention_seconds(model, sequence, flags.repeats * flags.decode_tokens) / timing.least;
  fmt::print("{:<8} {:>7} {:>8.3f} {:>10.3f} {:>10.3f} {:>11.1f} {:>7.1f}% {:>9.1f}% {:>6.1f}%\n", "decode",
             context, 1.0, timing.least * 1e3, timing.median * 1e3, 1 / timing.least, 0.0, attention * 100,
             (1 - attention) * 100);
  std::fflush(stdout);
  return {{"stage", "decode"},
          {"context", context},
          {"tokens", flags.decode_tokens},
          {"density", 1.0},
          {"seconds", timing.median},
          {"seconds_least", timing.least},
          {"tokens_per_second", 1 / timing.least},
          {"attention_share", attention}};
}

void run_cpu(const Flags& flags) {
  LoadedModel loaded = load_model(flags.model);
  auto& model = dynamic_cast<CpuTransformer&>(*loaded.transformer);
  const double weights = weight_mebibytes(loaded.folder);
  const std::string cpu = proc_value("/proc/cpuinfo", "model name");
  const std::string_view dtype = dtype_name(model.device(), model.options());
  fmt::print("{}, {}, {} threads, {}; {}: {:.1f} MiB of weights\n", cpu, name_of(model.context().isa()),
             model.context().num_threads(), dtype, loaded.folder, weights);
  fmt::print("{:<8} {:>7} {:>8} {:>10} {:>10} {:>11} {:>8} {:>10} {:>7}\n", "stage", "tokens", "density",
             "least ms", "median ms", "tokens/s", "select", "attention", "rest");
  nlohmann::json records = nlohmann::json::array();
  std::int64_t longest = 0;
  for (const std::int64_t length : flags.lengths) {
    longest = std::max(longest, length);
    for (const double density : flags.densities)
      records.push_back(bench_prefill(flags, model, length, density));
  }
  for (const std::int64_t context : flags.contexts) {
    longest = std::max(longest, context + flags.decode_tokens);
    records.push_back(bench_decode(flags, model, context));
  }
  const double peak = peak_mebibytes(), kv = kv_mebibytes(model, longest);
  fmt::print("peak memory {:.1f} MiB; weights and KV cache of {} tokens: {:.1f} MiB\n", peak, longest,
             weights + kv);
  if (flags.json.empty()) return;
  const nlohmann::json document = {{"benchmark", "model"},
                                   {"model", loaded.folder},
                                   {"cpu", cpu},
                                   {"isa", name_of(model.context().isa())},
                                   {"threads", model.context().num_threads()},
                                   {"dtype", dtype},
                                   {"selector", flags.selector},
                                   {"repeats", flags.repeats},
                                   {"peak_mib", peak},
                                   {"weights_mib", weights},
                                   {"kv_mib", kv},
                                   {"records", records}};
  write_json_file(flags.json, document.dump(1));
}

void run(Flags flags) {
  for (const std::int64_t length : flags.lengths)
    SEER_CHECK(length > 0, "--lengths {}: expected positive numbers of tokens", length);
  for (const std::int64_t length : flags.contexts)
    SEER_CHECK(length > 0, "--contexts {}: expected positive numbers of tokens", length);
  for (const double density : flags.densities)
    SEER_CHECK(density > 0 && density <= 1, "--densities {}: expected numbers above 0 and up to 1", density);
  SEER_CHECK(flags.selector != "dense", "--selector dense: name density 1 in --densities instead");
  if (flags.lengths.empty() && flags.contexts.empty()) flags.lengths = flags.contexts = {2048, 8192};
  if (device_of(flags.model) == Device::kCuda) return bench_model_cuda(flags);
  SEER_CHECK(flags.shape.empty(), "--shape: weights are drawn on the GPU; add --device cuda");
  run_cpu(flags);
}

}  // namespace

std::vector<std::int32_t> bench_ids(std::int64_t count, std::int64_t vocab_size) {
  std::mt19937 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (std::int32_t& id : ids)
    id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab_size));
  return ids;
}

void add_bench_model(CLI::App& bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *bench.add_subcommand("model", "Prefill and decode of a model");
  add_model_argument(command, flags->model);
  add_execution_flags(command, flags->model);
  add_gate_flag(command, flags->model);
  add_context_flag(command, flags->model);
  command.add_option("--shape", flags->shape,
                     "GPU: random weights in the shape of a published model instead of MODEL: " +
                         fmt::format("{}", fmt::join(shape_names(), ", ")));
  command
      .add_option("--lengths", flags->lengths,
                  "prompt lengths in tokens (default: 2048,8192, unless --contexts are named)")
      ->delimiter(',');
  command
      .add_option("--contexts", flags->contexts,
                  "tokens held before decoding (default: 2048,8192, unless --lengths are named)")
      ->delimiter(',');
  command.add_option("--densities", flags->densities, "shares of attention in prefill; 1 is dense")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--selector", flags->selector, "what chooses blocks: gate, oracle, local or random")
      ->capture_default_str();
  command.add_option("--decode-tokens", flags->decode_tokens, "tokens decoded in a run")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--repeats", flags->repeats, "timed runs after one to warm up")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--json", flags->json, "also write the results to this file");
  command.callback([flags] { run(*flags); });
}
