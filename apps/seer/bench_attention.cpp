// seer bench attention: attention dense and block-sparse, timed on the CPU or the GPU.
#include "bench_attention.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "commands.h"
#include "core/check.h"

using namespace seer;

namespace {

void run(const AttentionBenchFlags& flags) {
  SEER_CHECK(flags.device == "cpu" || flags.device == "cuda", "--device: expected cpu or cuda, found \"{}\"",
             flags.device);
  for (const std::int64_t length : flags.lengths)
    SEER_CHECK(length > 0, "--lengths {}: expected positive numbers of tokens", length);
  for (const double density : flags.densities)
    SEER_CHECK(density > 0 && density <= 1, "--densities {}: expected numbers above 0 and up to 1", density);
  SEER_CHECK(flags.repeats >= 0, "--repeats {}: expected a positive number", flags.repeats);
  SEER_CHECK(flags.kv_heads > 0 && flags.heads > 0 && flags.heads % flags.kv_heads == 0,
             "--heads {}: expected a multiple of --kv-heads {}", flags.heads, flags.kv_heads);
  (flags.device == "cpu" ? bench_attention_cpu : bench_attention_cuda)(flags);
}

}  // namespace

void add_bench_attention(CLI::App& bench) {
  auto flags = std::make_shared<AttentionBenchFlags>();
  CLI::App& command = *bench.add_subcommand("attention", "Attention, dense and block-sparse, on random data");
  command.add_option("--device", flags->device, "cpu or cuda")->capture_default_str();
  command.add_option("--lengths", flags->lengths, "Tokens")->delimiter(',')->capture_default_str();
  command
      .add_option("--densities", flags->densities,
                  "Shares of the causal blocks, by the top-k rule; dense is timed anyway")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--heads", flags->heads, "Query heads")->capture_default_str();
  command.add_option("--kv-heads", flags->kv_heads, "KV heads")->capture_default_str();
  command.add_option("--head-dim", flags->head_dim, "Size of a head")->capture_default_str();
  command.add_option(
      "--dtype", flags->dtype,
      "CPU: the KV cache's, float32 (default) or bfloat16; GPU: bfloat16 (default) or float16");
  command
      .add_option(
          "--masks", flags->masks,
          "Selected blocks: random, or local (the first block and a band); on the GPU several of these, "
          "group_random, uneven, dense_head, saved:PATH and gate (a gate's own on random data, its time "
          "included); decode: random, and with gate a decode gate's as well")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--repeats", flags->repeats,
                     "Timed runs after those to warm up (default: 5 on the CPU, 0.3 s of them on the GPU)");
  command.add_flag("--check", flags->check, "Compare sampled rows of each case with float64");
  command.add_option("--json", flags->json, "Also write the results to this file");
  const std::vector<CLI::Option*> of_cpu = {
      command.add_option("--threads", flags->threads, "CPU: threads; 0: one per core")->capture_default_str(),
      command
          .add_option("--clock", flags->clock,
                      "CPU: wall: elapsed time; cpu: processor time by thread, for machines with other work "
                      "to do")
          ->capture_default_str()};
  const std::vector<CLI::Option*> of_gpu = {
      command.add_option("--op", flags->op, "GPU: prefill, decode or target")->capture_default_str(),
      command.add_option("--batches", flags->batches, "GPU, decode: sequences")
          ->delimiter(',')
          ->capture_default_str(),
      command.add_flag("--separate-tiles", flags->separate_tiles,
                       "GPU, prefill: query tiles never share the keys that they read"),
      command.add_option(
          "--same-bits", flags->same_bits,
          "GPU, prefill: run each case this often, beside copies on the same GPU, and compare bits"),
      command.add_option("--splits", flags->splits, "GPU, decode: parts of a list of blocks; 0: chosen")};
  command.callback([flags, of_cpu, of_gpu] {
    for (const CLI::Option* option : flags->device == "cuda" ? of_cpu : of_gpu)
      SEER_CHECK(option->count() == 0, "{}: not with --device {}", option->get_name(), flags->device);
    run(*flags);
  });
}
