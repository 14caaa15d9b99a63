// seer bench attention --device cuda.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "attention_bench.h"
#include "bench_attention.h"
#include "common.h"
#include "core/check.h"
#include "cuda/attention.h"
#include "io/tensor_file.h"

using namespace seer;

namespace {

cuda::AttentionBenchOptions options_of(const AttentionBenchFlags& flags) {
  SEER_CHECK(flags.op == "prefill" || flags.op == "decode" || flags.op == "target",
             "--op {}: expected prefill, decode or target", flags.op);
  SEER_CHECK(flags.dtype.empty() || flags.dtype == "bfloat16" || flags.dtype == "float16",
             "--dtype {}: expected bfloat16 or float16", flags.dtype);
  SEER_CHECK(flags.same_bits >= 0, "--same-bits {}: expected a number of runs", flags.same_bits);
  for (const int batch : flags.batches)
    SEER_CHECK(batch > 0, "--batches {}: expected positive numbers of sequences", batch);
  return {.lengths = flags.lengths,
          .densities = flags.densities,
          .masks = flags.masks,
          .batches = flags.batches,
          .heads = flags.heads,
          .kv_heads = flags.kv_heads,
          .head_dim = flags.head_dim,
          .dtype = flags.dtype == "float16" ? DType::kF16 : DType::kBF16,
          .repeats = flags.repeats,
          .same_bits = flags.same_bits,
          .splits = flags.splits,
          .separate = flags.separate_tiles,
          .check = flags.check};
}

/// A record as bench/peers/attention_cuda_table.py reads it.
nlohmann::ordered_json record_of(const cuda::AttentionTiming& timing, const AttentionBenchFlags& flags,
                                 const cuda::DeviceRoof& roof) {
  nlohmann::ordered_json record = {{"op", timing.op},
                                   {"device", roof.name},
                                   {"length", timing.length},
                                   {"batch", timing.batch},
                                   {"heads", flags.heads},
                                   {"kv_heads", flags.kv_heads},
                                   {"dim", flags.head_dim},
                                   {"dtype", flags.dtype == "float16" ? "fp16" : "bf16"},
                                   {"mask", timing.mask},
                                   {"density", timing.density},
                                   {"sharing", flags.separate_tiles ? "separate" : "auto"},
                                   {"ms", timing.ms},
                                   {"ms_min", timing.ms_least},
                                   {"ms_max", timing.ms_most},
                                   {"runs", timing.runs},
                                   {"tflops", timing.tflops},
                                   {"gbps", timing.gbps},
                                   {"share_of_dense_times_density", timing.share_of_dense},
                                   {"share_of_roofline", timing.share_of_roofline},
                                   {"roof_tflops", roof.tflops},
                                   {"roof_gbps", roof.gbps}};
  if (timing.max_error) record["max_error"] = *timing.max_error;
  if (timing.rounding_error) record["rounding_error"] = *timing.rounding_error;
  if (timing.gate_ms) record["gate_ms"] = *timing.gate_ms;
  if (timing.same_bits) {
    record["same_bits_runs"] = flags.same_bits;
    record["same_bits"] = *timing.same_bits;
  }
  record["command"] = command_line();
  return record;
}

void print_row(const cuda::AttentionTiming& timing) {
  fmt::print(
      "{:>8} {:>6} {:>14} {:>8.3f} {:>9.4f} {:>9.1f} {:>8.0f} {:>8.1f}% {:>7.1f}%  {}\n", timing.length,
      timing.batch, timing.mask.substr(timing.mask.rfind('/') + 1), timing.density, timing.ms, timing.tflops,
      timing.gbps, timing.share_of_dense * 100, timing.share_of_roofline * 100,
      timing.max_error ? fmt::format("{:.2e} ({:.2e})", *timing.max_error, *timing.rounding_error) : "");
  std::fflush(stdout);
}

}  // namespace

void bench_attention_cuda(const AttentionBenchFlags& flags) {
  std::string reason;
  SEER_CHECK(cuda::available(&reason), "--device cuda: {}", reason);
  const cuda::AttentionBenchOptions options = options_of(flags);
  const cuda::DeviceRoof roof = cuda::device_roof();
  fmt::print("{}, {} H{} G{} D{}, {}; roof {:.0f} TFLOP/s, {:.0f} GB/s\n", roof.name, flags.op, flags.heads,
             flags.kv_heads, flags.head_dim, name_of(options.dtype), roof.tflops, roof.gbps);
  fmt::print("{:>8} {:>6} {:>14} {:>8} {:>9} {:>9} {:>8} {:>9} {:>8}  {}\n", "length", "batch", "mask",
             "density", "ms", "TFLOP/s", "GB/s", "of d x t", "of roof",
             flags.check ? "error (of rounding)" : "");
  nlohmann::ordered_json records = nlohmann::ordered_json::array();
  const auto report = [&](const cuda::AttentionTiming& timing) {
    print_row(timing);
    if (flags.json.empty()) return;
    // The whole file after every case, so that a run that is stopped leaves what it measured.
    records.push_back(record_of(timing, flags, roof));
    write_file_atomically(flags.json, records.dump(1) + '\n');
  };
  const auto bench = flags.op == "prefill"  ? cuda::bench_attention_prefill
                     : flags.op == "decode" ? cuda::bench_attention_decode
                                            : cuda::bench_pooled_target;
  bench(options, report);
}
