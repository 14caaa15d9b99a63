// seer bench attention on the CPU: times dense and block-sparse prefill attention on random data, with the
// gate and the selection beside it, and checks what it times.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "bench_attention.h"
#include "bench_peak.h"
#include "common.h"
#include "core/buffer.h"
#include "core/check.h"
#include "core/context.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/gate.h"
#include "ops/reference/attention.h"
#include "ops/select.h"

using namespace seer;

namespace {

using Flags = AttentionBenchFlags;

/// Seconds of repeated runs. Rates come from the least: what the machine does when nothing else disturbs it.
struct Timing {
  double median = 0;
  double least = 0;
  double most = 0;
};

/// Seconds since some start: elapsed, or of the process on the processors, shared among its threads.
double now(const Flags& flags, const Context& context) {
  timespec time{};
  clock_gettime(flags.clock == "wall" ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &time);
  const double seconds = static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  return flags.clock == "wall" ? seconds : seconds / context.num_threads();
}

template <class Body>
Timing time_runs(const Flags& flags, const Context& context, const Body& body) {
  std::vector<double> seconds;
  body();  // warm-up
  for (int i = 0; i < flags.repeats; ++i) {
    const double start = now(flags, context);
    body();
    seconds.push_back(now(flags, context) - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

void fill_random(Buffer<float>& values, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (float& x : values) x = normal(random);
}

/// Query-key pairs that attention computes: 4 * head_dim floating-point operations each.
double causal_pairs(std::int64_t length, int heads, const BlockMask* mask) {
  if (mask == nullptr) return 0.5 * static_cast<double>(length) * static_cast<double>(length + 1) * heads;
  double pairs = 0;
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t row = 0; row < mask->num_rows(); ++row) {
      const auto queries = static_cast<double>(std::min(kBlockSize, length - row * kBlockSize));
      const bool diagonal = mask->test(head, row, row);
      const auto full_blocks = static_cast<double>(mask->count(head, row) - (diagonal ? 1 : 0));
      pairs += queries * kBlockSize * full_blocks + (diagonal ? queries * (queries + 1) / 2 : 0);
    }
  }
  return pairs;
}

/// One length's random inputs, KV pages and default gate (Qavg_Kmaxminavg).
class Problem {
 public:
  Problem(const Flags& flags, const Context& context, std::int64_t length)
      : flags_(flags),
        context_(context),
        length_(length),
        q_(length * flags.heads * flags.head_dim),
        k_(length * flags.kv_heads * flags.head_dim),
        v_(k_.size()),
        out_(q_.size()),
        weights_(std::int64_t{flags.heads} * 3 * flags.head_dim * flags.head_dim) {
    fill_random(q_, 1);
    fill_random(k_, 2);
    fill_random(v_, 3);
    fill_random(weights_, 4);
    const std::int64_t blocks = blocks_for(length);
    const DType dtype = flags.dtype == "float32" ? DType::kF32 : DType::kBF16;
    table_.resize(static_cast<std::size_t>(blocks));
    for (std::int64_t i = 0; i < blocks; ++i)
      table_[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i);
    const std::int64_t page = PagedKv::page_bytes(dtype, flags.kv_heads, flags.head_dim);
    pool_ = Buffer<std::byte>(blocks * page);
    std::fill(pool_.begin(), pool_.end(), std::byte{0});
    params_.kv = {dtype, pool_.data(), page, table_.data(), flags.kv_heads, flags.head_dim, length};
    kv_store(context, params_.kv, 0, length, k_.data(), v_.data());
    params_.q = q_.data();
    params_.out = out_.data();
    params_.num_tokens = length;
    params_.num_heads = flags.heads;
    params_.scale = 1 / std::sqrt(static_cast<float>(flags.head_dim));
    rotation_cos_ = Buffer<float>(blocks * flags.head_dim / 2);
    rotation_sin_ = Buffer<float>(rotation_cos_.size());
    fill_random(rotation_cos_, 5);
    fill_random(rotation_sin_, 6);
  }

  void attend(const BlockMask* mask) {
    params_.mask = mask;
    attention_prefill(context_, params_);
  }

  /// The whole gate from queries and keys to a mask: pooling, projection, rotation, scores, selection.
  void run_gate(const SelectParams& select, BlockMask& mask) {
    const std::int64_t blocks = blocks_for(length_);
    const int heads = flags_.heads;
    const int dim = flags_.head_dim;
    pooled_q_.reserve_discard(blocks * heads * dim);
    pooled_k_.reserve_discard(blocks * flags_.kv_heads * 3 * dim);
    gate_k_.reserve_discard(blocks * heads * dim);
    scores_.reserve_discard(heads * blocks * blocks);
    block_pool(context_, q_.data(), length_, heads, dim, std::int64_t{heads} * dim, kPoolAvg,
               pooled_q_.data());
    block_pool(context_, k_.data(), length_, flags_.kv_heads, dim, std::int64_t{flags_.kv_heads} * dim,
               kPoolMax | kPoolMin | kPoolAvg, pooled_k_.data());
    gate_project(context_, pooled_k_.data(), blocks, flags_.kv_heads, 3 * dim, weights_.data(), heads, dim,
                 gate_k_.data());
    for (Buffer<float>* x : {&pooled_q_, &gate_k_})
      apply_rope(context_, x->data(), rotation_cos_.data(), rotation_sin_.data(), blocks, heads, dim,
                 std::int64_t{heads} * dim, x->data(), std::int64_t{heads} * dim);
    gate_scores(context_, pooled_q_.data(), blocks, 0, heads, gate_k_.data(), heads, dim, scores_.data(),
                blocks);
    mask.reset(heads, 0, blocks);
    select_blocks(context_, scores_.data(), blocks, select, mask);
  }

  /// Largest difference of sampled rows of the last output to float64; throws Error above the tolerance.
  double check(const BlockMask* mask) {
    // Products of bf16 round both operands; float32 products only accumulate.
    const bool bf16_products = context_.isa() >= CpuIsa::kAvx512Bf16 && params_.kv.dtype == DType::kBF16;
    const double tolerance = bf16_products ? 2e-2 : 1e-4;
    params_.mask = mask;
    std::mt19937_64 random(7);
    std::vector<double> expected(static_cast<std::size_t>(flags_.head_dim));
    double worst = 0;
    for (int sample = 0; sample < 64; ++sample) {
      const auto draw = [&](std::int64_t size) {
        return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(size));
      };
      const std::int64_t token = sample == 0 ? length_ - 1 : draw(length_);
      const int head = static_cast<int>(draw(flags_.heads));
      reference::attention_prefill_row(params_, token, head, expected.data());
      const float* actual = out_.data() + (token * flags_.heads + head) * flags_.head_dim;
      for (std::size_t d = 0; d < expected.size(); ++d) {
        const double difference = std::abs(actual[d] - expected[d]);
        SEER_CHECK(difference <= tolerance,
                   "bench attention: length {}, token {}, head {}: expected {} within {}, found {}", length_,
                   token, head, expected[d], tolerance, actual[d]);
        worst = std::max(worst, difference);
      }
    }
    return worst;
  }

 private:
  const Flags& flags_;
  const Context& context_;
  std::int64_t length_;
  Buffer<float> q_, k_, v_, out_, weights_, rotation_cos_, rotation_sin_;
  Buffer<float> pooled_q_, pooled_k_, gate_k_, scores_;
  Buffer<std::byte> pool_;
  std::vector<std::int32_t> table_;
  PrefillAttentionParams params_;
};

/// The model name of this machine's CPU.
std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace

void bench_attention_cpu(const AttentionBenchFlags& given) {
  Flags flags = given;
  if (flags.dtype.empty()) flags.dtype = "float32";
  if (flags.repeats == 0) flags.repeats = 5;
  SEER_CHECK(flags.dtype == "float32" || flags.dtype == "bfloat16",
             "--dtype {}: expected float32 or bfloat16", flags.dtype);
  SEER_CHECK(flags.masks.size() == 1 && (flags.masks[0] == "random" || flags.masks[0] == "local"),
             "--masks {}: expected random or local", fmt::join(flags.masks, ","));
  SEER_CHECK(flags.clock == "wall" || flags.clock == "cpu", "--clock {}: expected wall or cpu", flags.clock);
  const Context context(flags.threads);
  const double peak = peak_gflops(context);
  fmt::print("{}, {}, {} threads, {:.0f} GFLOP/s float32 peak; H{} G{} D{}, KV in {}, {} masks\n", cpu_name(),
             name_of(context.isa()), context.num_threads(), peak, flags.heads, flags.kv_heads, flags.head_dim,
             flags.dtype, flags.masks[0]);
  fmt::print("{:>8} {:>8} {:>10} {:>10} {:>8} {:>9} {:>6} {:>9} {:>9} {:>8}\n", "length", "density",
             "least ms", "median ms", "spread", "GFLOP/s", "peak", "of d x t", "gate ms", "speed-up");
  nlohmann::json records = nlohmann::json::array();
  for (const std::int64_t length : flags.lengths) {
    Problem problem(flags, context, length);
    double dense_seconds = 0;
    const auto report = [&](const BlockMask* mask, double density, double gate_seconds) {
      const Timing timing = time_runs(flags, context, [&] { problem.attend(mask); });
      if (mask == nullptr) dense_seconds = timing.least;
      const double gflops =
          4 * flags.head_dim * causal_pairs(length, flags.heads, mask) / timing.least * 1e-9;
      const double spread = (timing.most - timing.least) / timing.median;
      const double share = dense_seconds * density / timing.least;
      const double speed_up = dense_seconds / (timing.least + gate_seconds);
      fmt::print(
          "{:>8} {:>8.3f} {:>10.3f} {:>10.3f} {:>7.1f}% {:>9.1f} {:>5.1f}% {:>8.1f}% {:>9.3f} {:>8.2f}\n",
          length, density, timing.least * 1e3, timing.median * 1e3, spread * 100, gflops, gflops / peak * 100,
          share * 100, gate_seconds * 1e3, speed_up);
      std::fflush(stdout);
      nlohmann::json record = {{"length", length},
                               {"density", density},
                               {"seconds", timing.median},
                               {"seconds_least", timing.least},
                               {"seconds_most", timing.most},
                               {"gate_seconds", gate_seconds},
                               {"gflops", gflops},
                               {"share_of_peak", gflops / peak},
                               {"share_of_dense_times_density", share},
                               {"speed_up_with_gate", speed_up}};
      if (flags.check) record["largest_difference"] = problem.check(mask);
      records.push_back(std::move(record));
    };
    report(nullptr, 1.0, 0);
    for (const double wanted : flags.densities) {
      if (wanted == 1.0) continue;
      SelectParams select;
      select.rule = SelectRule::kNzRatio;
      select.value = wanted;
      select.total_blocks = blocks_for(length);
      BlockMask mask;
      const Timing gate = time_runs(flags, context, [&] { problem.run_gate(select, mask); });
      mask.reset(flags.heads, 0, select.total_blocks);
      if (flags.masks[0] == "random")
        select_random(select, 8, 0, mask);
      else
        select_sink_local(select, mask);
      const double density =
          static_cast<double>(mask.selected_blocks()) / static_cast<double>(mask.causal_blocks());
      report(&mask, density, gate.least);
    }
  }
  if (flags.json.empty()) return;
  const nlohmann::json document = {{"benchmark", "attention"},
                                   {"cpu", cpu_name()},
                                   {"isa", name_of(context.isa())},
                                   {"threads", context.num_threads()},
                                   {"peak_gflops", peak},
                                   {"heads", flags.heads},
                                   {"kv_heads", flags.kv_heads},
                                   {"head_dim", flags.head_dim},
                                   {"dtype", flags.dtype},
                                   {"masks", flags.masks[0]},
                                   {"repeats", flags.repeats},
                                   {"clock", flags.clock},
                                   {"records", records}};
  write_json_file(flags.json, document.dump(1));
}
