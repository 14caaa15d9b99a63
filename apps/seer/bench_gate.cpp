// seer bench gate: the gate's kernels on the GPU, step by step.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attention_bench.h"
#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "cuda/attention.h"
#include "gate_bench.h"
#include "io/tensor_file.h"

using namespace seer;

namespace {

struct GateBenchFlags {
  std::string device = "cuda";
  std::vector<std::int64_t> lengths = {8192, 32768, 131072};
  std::vector<double> densities = {0.1};
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int repeats = 0;
  std::string json;
};

nlohmann::ordered_json record_of(const cuda::GateTiming& timing, const GateBenchFlags& flags,
                                 const cuda::DeviceRoof& roof) {
  nlohmann::ordered_json record = {{"device", roof.name},   {"length", timing.length},
                                   {"heads", flags.heads},  {"kv_heads", flags.kv_heads},
                                   {"dim", flags.head_dim}, {"step", timing.step}};
  if (!timing.rule.empty()) {
    record["rule"] = timing.rule;
    record["density"] = timing.density;
  }
  record["us"] = timing.us;
  record["us_min"] = timing.us_least;
  record["us_max"] = timing.us_most;
  record["bytes"] = timing.bytes;
  record["share_of_copy"] = timing.share_of_copy;
  record["command"] = command_line();
  return record;
}

void run(const GateBenchFlags& flags) {
  SEER_CHECK(flags.device == "cuda", "--device {}: expected cuda", flags.device);
  for (const std::int64_t length : flags.lengths)
    SEER_CHECK(length > 0, "--lengths {}: expected positive numbers of tokens", length);
  for (const double density : flags.densities)
    SEER_CHECK(density > 0 && density < 1, "--densities {}: expected numbers between 0 and 1", density);
  SEER_CHECK(flags.repeats >= 0, "--repeats {}: expected a positive number", flags.repeats);
  SEER_CHECK(flags.kv_heads > 0 && flags.heads > 0 && flags.heads % flags.kv_heads == 0,
             "--heads {}: expected a multiple of --kv-heads {}", flags.heads, flags.kv_heads);
  std::string reason;
  SEER_CHECK(cuda::available(&reason), "--device cuda: {}", reason);
  const cuda::DeviceRoof roof = cuda::device_roof();
  fmt::print("{}, gate Qavg_Kmaxminavg, H{} G{} D{}\n", roof.name, flags.heads, flags.kv_heads,
             flags.head_dim);
  fmt::print("{:>8}  {:<14} {:<10} {:>8} {:>9} {:>19} {:>9} {:>8}\n", "length", "step", "rule", "density",
             "us", "from to", "MB", "of copy");
  nlohmann::ordered_json records = nlohmann::ordered_json::array();
  const auto report = [&](const cuda::GateTiming& timing) {
    fmt::print("{:>8}  {:<14} {:<10} {:>8} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>7.0f}%\n", timing.length,
               timing.step, timing.rule, timing.rule.empty() ? "" : fmt::format("{:.3f}", timing.density),
               timing.us, timing.us_least, timing.us_most, timing.bytes * 1e-6, timing.share_of_copy * 100);
    std::fflush(stdout);
    if (flags.json.empty()) return;
    // The whole file after every step, so that a run that is stopped leaves what it measured.
    records.push_back(record_of(timing, flags, roof));
    write_file_atomically(flags.json, records.dump(1) + '\n');
  };
  cuda::bench_gate({.lengths = flags.lengths,
                    .densities = flags.densities,
                    .heads = flags.heads,
                    .kv_heads = flags.kv_heads,
                    .head_dim = flags.head_dim,
                    .repeats = flags.repeats},
                   report);
}

}  // namespace

void add_bench_gate(CLI::App& bench) {
  auto flags = std::make_shared<GateBenchFlags>();
  CLI::App& command = *bench.add_subcommand("gate", "The gate on the GPU: pooling, projections, selection");
  command.add_option("--device", flags->device, "cuda")->capture_default_str();
  command.add_option("--lengths", flags->lengths, "Tokens")->delimiter(',')->capture_default_str();
  command.add_option("--densities", flags->densities, "Shares of the causal blocks to select")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--heads", flags->heads, "Query heads")->capture_default_str();
  command.add_option("--kv-heads", flags->kv_heads, "KV heads")->capture_default_str();
  command.add_option("--head-dim", flags->head_dim, "Size of a head")->capture_default_str();
  command.add_option("--repeats", flags->repeats, "Timed launches of each step's graph (default: 32)");
  command.add_option("--json", flags->json, "Also write the results to this file");
  command.callback([flags] { run(*flags); });
}
