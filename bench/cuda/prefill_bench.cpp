#include <algorithm>
#include <cmath>
#include <vector>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/device_array.h"
#include "device_fill.h"
#include "gate_pipeline.h"
#include "masks.h"
#include "measure.h"
#include "ops/block_mask.h"

namespace seer::cuda {
namespace {

/// One sequence's random inputs, and the parameters that point to them.
class Problem {
 public:
  Problem(const AttentionBenchOptions& options, const DeviceRoof& roof, std::int64_t length)
      : options_(options),
        roof_(roof),
        q_(length * options.heads * options.head_dim),
        k_(length * options.kv_heads * options.head_dim),
        v_(k_.size()),
        out_(q_.size()),
        cu_seqlens_(std::vector<std::int32_t>{0, static_cast<std::int32_t>(length)}),
        workspace_(2) {
    workspace_.fill_bytes(0);
    fill_normal(options.dtype, q_.data(), q_.size(), 1);
    fill_normal(options.dtype, k_.data(), k_.size(), 2);
    fill_normal(options.dtype, v_.data(), v_.size(), 3);
    p_.q = q_.data();
    p_.out = out_.data();
    p_.q_token_stride = p_.out_token_stride = static_cast<std::int64_t>(options.heads) * options.head_dim;
    p_.q_head_stride = p_.out_head_stride = options.head_dim;
    p_.kv = {.k = k_.data(),
             .v = v_.data(),
             .token_stride = static_cast<std::int64_t>(options.kv_heads) * options.head_dim,
             .head_stride = options.head_dim,
             .total_tokens = length};
    p_.dtype = options.dtype;
    p_.num_heads = options.heads;
    p_.num_kv_heads = options.kv_heads;
    p_.head_dim = options.head_dim;
    p_.scale = 1.0f / std::sqrt(static_cast<float>(options.head_dim));
    p_.cu_seqlens_q = p_.cu_seqlens_k = cu_seqlens_.data();
    p_.total_q = length;
    p_.max_rows = blocks_for(length);
    p_.mask_words = (p_.max_rows + 63) / 64;
    p_.workspace = workspace_.data();
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
      out_.fill_bytes(0xff);
      run();
      check_output(p_, std::max<std::int64_t>(1, p_.total_q / 24) | 1, out_, timing);
    }
    time_runs(options_.repeats, run, timing);
    rate_case(timing);
    if (mask == nullptr) dense_ms_ = timing.ms;
    if (same_bits_runs > 0) timing.same_bits = same_bits(same_bits_runs, out_, run);
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
      out_.fill_bytes(0xff);
      run();
      check_output(p_, std::max<std::int64_t>(1, p_.total_q / 24) | 1, out_, timing);
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
    const double n = static_cast<double>(p_.max_rows);
    const double blocks = timing.density * options_.heads * n * (n + 1) / 2;
    const double flop = 4.0 * kBlockSize * kBlockSize * options_.head_dim * blocks;
    const auto bytes = static_cast<double>(q_.bytes() + k_.bytes() + v_.bytes() + out_.bytes());
    const auto mask_bytes = static_cast<double>(p_.mask_heads * p_.max_rows * p_.mask_words * 8);
    rate(roof_, flop, bytes + mask_bytes, dense_ms_, timing);
  }

  const AttentionBenchOptions& options_;
  const DeviceRoof& roof_;
  DeviceArray<std::uint16_t> q_, k_, v_, out_;
  DeviceArray<std::int32_t> cu_seqlens_, workspace_;
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
