#include <algorithm>
#include <vector>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/device_array.h"
#include "gate_pipeline.h"
#include "masks.h"
#include "measure.h"
#include "ops/block_mask.h"
#include "random_prompt.h"

namespace seer::cuda {
namespace {

/// A random prompt under one mask after the other.
class Problem {
 public:
  Problem(const AttentionBenchOptions& options, const DeviceRoof& roof, std::int64_t length)
      : options_(options), roof_(roof), prompt_(options, length), p_(prompt_.params()) {
    p_.mask_words = mask_words_for(p_.max_rows);
    p_.sharing = options.separate ? TileSharing::kSeparate : TileSharing::kAuto;
  }

  /// Times one case and, with `same_bits_runs` > 0, compares the bits of that many runs. nullptr: dense.
  AttentionTiming time(const std::string& kind, const BenchMask* mask, int same_bits_runs) {
    DeviceArray<std::uint64_t> words;
    if (mask != nullptr) words = DeviceArray<std::uint64_t>(mask->bits);
    p_.mask = mask != nullptr ? words.data() : nullptr;
    p_.mask_heads = mask != nullptr ? mask->heads : 0;
    AttentionTiming timing{.op = "prefill", .length = p_.total_q, .mask = kind};
    timing.density = mask != nullptr ? mask->density : 1;
    const auto run = [&] { attention_prefill(p_, nullptr); };
    if (options_.check) {
      prompt_.out.fill_bytes(0xff);
      run();
      check_output(p_, std::max<std::int64_t>(1, p_.total_q / 24) | 1, prompt_.out, timing);
    }
    time_runs(options_.repeats, run, timing);
    rate_case(timing);
    if (mask == nullptr) dense_ms_ = timing.ms;
    if (same_bits_runs > 0) timing.same_bits = same_bits(same_bits_runs, prompt_.out, run);
    return timing;
  }

  /// Times attention with the blocks that a gate selects, the gate included.
  AttentionTiming time_gate(double density) {
    SEER_CHECK(options_.dtype == DType::kBF16, "--masks {}: expected --dtype bfloat16, found {}", kGateMask,
               name_of(options_.dtype));
    GatePipeline gate({p_.total_q, options_.heads, options_.kv_heads, options_.head_dim});
    const SelectParams select = gate.params_for(SelectRule::kNzRatio, density);
    p_.mask = gate.mask();
    p_.mask_heads = options_.heads;
    AttentionTiming timing{.op = "prefill", .length = p_.total_q, .mask = kGateMask};
    timing.density = gate.density(select);
    const auto run = [&] { attention_prefill(p_, nullptr); };
    if (options_.check) {
      prompt_.out.fill_bytes(0xff);
      run();
      check_output(p_, std::max<std::int64_t>(1, p_.total_q / 24) | 1, prompt_.out, timing);
    }
    AttentionTiming rope, before_attention;
    time_runs(
        options_.repeats, [&] { gate.rope(nullptr); }, rope);
    time_runs(
        options_.repeats, [&] { gate.all(select, nullptr); }, before_attention);
    time_runs(
        options_.repeats,
        [&] {
          gate.all(select, nullptr);
          run();
        },
        timing);
    timing.ms -= rope.ms;
    timing.ms_least -= rope.ms;
    timing.ms_most -= rope.ms;
    timing.gate_ms = before_attention.ms - rope.ms;
    rate_case(timing);
    return timing;
  }

 private:
  void rate_case(AttentionTiming& timing) const {
    const double blocks =
        timing.density * static_cast<double>(options_.heads * causal_blocks_of(0, p_.max_rows));
    const double flop = 4.0 * kBlockSize * kBlockSize * options_.head_dim * blocks;
    const auto mask_bytes = static_cast<double>(p_.mask_heads * p_.max_rows * p_.mask_words * 8);
    rate(roof_, flop, prompt_.bytes() + mask_bytes, dense_ms_, timing);
  }

  const AttentionBenchOptions& options_;
  const DeviceRoof& roof_;
  RandomPrompt prompt_;
  PrefillAttentionParams p_;
  double dense_ms_ = 0;
};

}  // namespace

void bench_attention_prefill(const AttentionBenchOptions& options, const AttentionReport& report) {
  for (const std::string& kind : options.masks)
    if (kind != kGateMask) check_mask_kind(kind);
  const DeviceRoof roof = device_roof();
  const bool dense_wanted =
      std::find(options.densities.begin(), options.densities.end(), 1.0) != options.densities.end();
  for (const std::int64_t length : options.lengths) {
    Problem problem(options, roof, length);
    const auto finish = [&](const AttentionTiming& timing) {
      report(timing);
      require_right(timing);
    };
    const auto time = [&](const std::string& kind, const BenchMask* mask, int same_bits_runs) {
      finish(problem.time(kind, mask, same_bits_runs));
    };
    time("dense", nullptr, dense_wanted ? options.same_bits : 0);
    for (const std::string& kind : options.masks) {
      const auto time_mask = [&](double density) {
        const BenchMask mask = make_mask(kind, options.heads, options.kv_heads, blocks_for(length), density);
        time(kind, &mask, options.same_bits);
      };
      if (is_saved_mask(kind)) {
        time_mask(1);
        continue;
      }
      for (const double density : options.densities) {
        if (density >= 1) continue;
        if (kind == kGateMask) {
          finish(problem.time_gate(density));
        } else {
          time_mask(density);
        }
      }
    }
  }
}

}  // namespace seer::cuda
