// seer bench distill: times the updates of gates in distillation, on random samples.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "commands.h"
#include "common.h"
#include "core/check.h"
#include "io/tensor_file.h"
#include "ops/block_mask.h"
#include "train/random_samples.h"

using namespace seer;

namespace {

struct Flags {
  std::string device = "cpu";
  int layers = 8;
  int heads = 8;
  int kv_heads = 2;
  int head_dim = 128;
  std::vector<std::int64_t> lengths = {8192};
  std::size_t batch = 8;
  int steps = 20;
  int threads = 0;
  std::string gate_type = "Qavg_Kmaxminavg";
  bool force_double = false;
  bool check = false;
  std::string json;
};

ModelConfig model_of(const Flags& flags) {
  ModelConfig model;
  model.num_layers = flags.layers;
  model.num_heads = flags.heads;
  model.num_kv_heads = flags.kv_heads;
  model.head_dim = flags.head_dim;
  model.max_position_embeddings = model.rope.max_position_embeddings = 1 << 17;
  return model;
}

struct Run {
  std::vector<double> losses;  // [step * layers + layer]
  std::vector<double> milliseconds;
};

Run run_steps(GateTrainer& trainer, const std::vector<std::size_t>& batch, int steps) {
  Run run;
  for (int step = 1; step <= steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<double> losses = trainer.step(batch, step, 1e-3);
    run.milliseconds.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    run.losses.insert(run.losses.end(), losses.begin(), losses.end());
  }
  return run;
}

double largest_difference(const std::vector<double>& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(actual[i] - expected[i]) / std::abs(expected[i]);
    if (!(difference <= largest)) largest = difference;  // keeps a NaN
  }
  return largest;
}

void bench_distill(const Flags& flags) {
  const bool on_gpu = device_of({.device = flags.device}) == Device::kCuda;
  SEER_CHECK(on_gpu || !flags.check, "--check: compares with the CPU, so only with --device cuda");
  SEER_CHECK(
      flags.layers > 0 && flags.kv_heads > 0 && flags.heads > 0 && flags.heads % flags.kv_heads == 0 &&
          flags.head_dim > 0 && flags.head_dim % 2 == 0 && flags.batch > 0 && flags.steps > 1,
      "bench distill: expected positive sizes, --heads a multiple of --kv-heads, an even --head-dim and "
      "at least two --steps");
  for (const std::int64_t length : flags.lengths)
    SEER_CHECK(length > 0, "--lengths: expected positive numbers of tokens, found {}", length);
  const ModelConfig model = model_of(flags);
  GateConfig gate = parse_gate_type(flags.gate_type);
  gate.gate_hidden_size = flags.head_dim;
  gate.force_double = flags.force_double;
  const Context context(flags.threads);
  fmt::print("{}, {} layers H{} G{} D{}, {}{}, {} sequences a step\n", flags.device, flags.layers,
             flags.heads, flags.kv_heads, flags.head_dim, flags.gate_type,
             flags.force_double ? " with a q linear" : "", flags.batch);
  fmt::print("{:>8} {:>10} {:>10} {:>10} {:>12} {:>12}{}\n", "length", "first ms", "median ms", "least ms",
             "first loss", "last loss", flags.check ? "  difference to the CPU's losses" : "");
  nlohmann::ordered_json records = nlohmann::ordered_json::array();
  for (const std::int64_t length : flags.lengths) {
    const RandomSamples samples(model, gate, std::vector<std::int64_t>(flags.batch, blocks_for(length)));
    std::vector<std::size_t> batch(flags.batch);
    std::iota(batch.begin(), batch.end(), 0);
    TrainState state = samples.state();
    const auto trainer = on_gpu ? make_cuda_trainer(samples.set(), GateLoss::kRow, state)
                                : make_cpu_trainer(context, samples.set(), GateLoss::kRow, state);
    const Run run = run_steps(*trainer, batch, flags.steps);
    std::vector<double> sorted(run.milliseconds.begin() + 1, run.milliseconds.end());
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[sorted.size() / 2];
    nlohmann::ordered_json record = {{"device", flags.device},
                                     {"layers", flags.layers},
                                     {"heads", flags.heads},
                                     {"kv_heads", flags.kv_heads},
                                     {"dim", flags.head_dim},
                                     {"length", length},
                                     {"batch", flags.batch},
                                     {"first_ms", run.milliseconds.front()},
                                     {"ms", median},
                                     {"ms_min", sorted.front()},
                                     {"ms_max", sorted.back()},
                                     {"steps", flags.steps}};
    std::string difference;
    if (flags.check) {
      TrainState expected = samples.state();
      const auto cpu = make_cpu_trainer(context, samples.set(), GateLoss::kRow, expected);
      const double largest = largest_difference(run.losses, run_steps(*cpu, batch, flags.steps).losses);
      record["loss_difference"] = largest;
      difference = fmt::format("  {:.1e}", largest);
    }
    fmt::print("{:>8} {:>10.2f} {:>10.3f} {:>10.3f} {:>12.6f} {:>12.6f}{}\n", length,
               run.milliseconds.front(), median, sorted.front(), run.losses.front(), run.losses.back(),
               difference);
    std::fflush(stdout);
    record["command"] = command_line();
    records.push_back(record);
    if (!flags.json.empty()) write_file_atomically(flags.json, records.dump(1) + '\n');
  }
}

}  // namespace

void add_bench_distill(CLI::App& bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command = *bench.add_subcommand("distill", "Updates of gates in distillation, on random samples");
  command.add_option("--device", flags->device, "cpu or cuda")->capture_default_str();
  command.add_option("--layers", flags->layers, "Layers, trained together")->capture_default_str();
  command.add_option("--heads", flags->heads, "Query heads")->capture_default_str();
  command.add_option("--kv-heads", flags->kv_heads, "KV heads")->capture_default_str();
  command.add_option("--head-dim", flags->head_dim, "Size of a head, and the gate's")->capture_default_str();
  command.add_option("--lengths", flags->lengths, "Tokens of a sequence")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--batch", flags->batch, "Sequences a step")->capture_default_str();
  command.add_option("--steps", flags->steps, "Steps; the first one warms up")->capture_default_str();
  command.add_option("--threads", flags->threads, "CPU: threads; 0: one per core")->capture_default_str();
  command.add_option("--gate-type", flags->gate_type, "Q<pools>_K<pools>, pools of max, min, avg")
      ->capture_default_str();
  command.add_flag("--force-double", flags->force_double, "A q linear even where none is needed");
  command.add_flag("--check", flags->check, "GPU: compare the losses with the CPU's");
  command.add_option("--json", flags->json, "Also write the results to this file");
  command.callback([flags] { bench_distill(*flags); });
}
