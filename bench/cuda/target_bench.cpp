#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/device_array.h"
#include "cuda/pooled_target.h"
#include "measure.h"
#include "ops/block_mask.h"
#include "random_prompt.h"

namespace seer::cuda {
namespace {

/// Relative error allowed, halved: require_right() doubles it. Scores of magnitude 50 in float32 are off by
/// some 1e-5.
constexpr double kRounding = 1e-4;

/// A random prompt in pages, which lie one after another.
class Problem {
 public:
  Problem(const AttentionBenchOptions& options, const DeviceRoof& roof, std::int64_t length)
      : options_(options),
        roof_(roof),
        length_(length),
        blocks_(blocks_for(length)),
        prompt_(options, length),
        lse_(length * options.heads),
        target_(options.heads * blocks_ * blocks_),
        dense_(prompt_.params()) {
    std::vector<std::int32_t> pages(static_cast<std::size_t>(blocks_));
    std::iota(pages.begin(), pages.end(), 0);
    page_table_ = DeviceArray<std::int32_t>(pages);
    dense_.lse = lse_.data();
    dense_.kv.page_table = page_table_.data();
    dense_.kv.page_table_stride = blocks_;
    dense_.kv.page_stride = kBlockSize * dense_.kv.token_stride;
    dense_.kv.num_pages = blocks_;
  }

  AttentionTiming time_dense() {
    AttentionTiming timing{.op = "prefill", .length = length_, .mask = "dense"};
    time_runs(
        options_.repeats, [&] { attention_prefill(dense_, nullptr); }, timing);
    rate(roof_, flop(), bytes(), 0, timing);
    dense_ms_ = timing.ms;
    return timing;
  }

  AttentionTiming time_with_target() {
    DeviceArray<std::uint8_t> workspace(static_cast<std::int64_t>(pooled_target_workspace(blocks_)));
    const PooledTargetOutput output = {
        .target = target_.data(), .stride = blocks_, .workspace = workspace.data()};
    const auto run = [&] { attention_with_target(dense_, output, nullptr); };
    AttentionTiming timing{.op = "target", .length = length_, .mask = "dense+target"};
    target_.fill_bytes(0xff);
    run();
    if (options_.check) check_rows(timing);
    time_runs(options_.repeats, run, timing);
    rate(roof_, flop(), bytes() + static_cast<double>(target_.bytes()), dense_ms_, timing);
    return timing;
  }

 private:
  /// Of attention's two products over the causal blocks.
  double flop() const {
    return 2.0 * kBlockSize * kBlockSize * options_.head_dim * options_.heads *
           static_cast<double>(blocks_ * (blocks_ + 1));
  }

  double bytes() const { return prompt_.bytes() + static_cast<double>(lse_.bytes()); }

  /// The largest relative error of four block rows, float64 on the host, and the sums of all rows.
  void check_rows(AttentionTiming& timing) const {
    const std::vector<float> q = widened(prompt_.q), k = widened(prompt_.k), target = target_.download();
    double error = 0;
    const auto note = [&error](double difference) {
      if (!(difference <= error)) error = difference;  // keeps a NaN
    };
    for (std::int64_t row = 0; row < options_.heads * blocks_; ++row) {
      const auto first = target.begin() + row * blocks_;
      note(std::abs(std::accumulate(first, first + blocks_, 0.0) - 1));
    }
    const std::array<std::int64_t, 4> rows = {0, blocks_ / 3, blocks_ - 2, blocks_ - 1};
    for (std::size_t i = 0; i < rows.size() && rows[i] >= 0; ++i) {
      const int head = static_cast<int>(i) * (options_.heads - 1) / 3;
      const std::vector<double> exact = exact_row(q, k, head, rows[i]);
      for (std::int64_t j = 0; j <= rows[i]; ++j) {
        const double expected = exact[static_cast<std::size_t>(j)];
        const float actual = target[static_cast<std::size_t>((head * blocks_ + rows[i]) * blocks_ + j)];
        note(std::abs(actual - expected) / expected);
      }
    }
    timing.max_error = error;
    timing.rounding_error = kRounding;
  }

  std::vector<float> widened(const DeviceArray<std::uint16_t>& array) const {
    const std::vector<std::uint16_t> bits = array.download();
    std::vector<float> values(bits.size());
    widen_to_float(options_.dtype, bits.data(), values.data(), array.size());
    return values;
  }

  std::vector<double> exact_row(const std::vector<float>& q, const std::vector<float>& k, int head,
                                std::int64_t row) const {
    const std::int64_t dim = options_.head_dim;
    const int kv_head = head / (options_.heads / options_.kv_heads);
    std::vector<double> largest(static_cast<std::size_t>(row + 1), 0.0);
    std::vector<double> scores;
    for (std::int64_t t = row * kBlockSize; t < std::min(length_, (row + 1) * kBlockSize); ++t) {
      scores.resize(static_cast<std::size_t>(t + 1));
      for (std::int64_t key = 0; key <= t; ++key) {
        const float* a = q.data() + (t * options_.heads + head) * dim;
        const float* b = k.data() + (key * options_.kv_heads + kv_head) * dim;
        scores[static_cast<std::size_t>(key)] = std::inner_product(a, a + dim, b, 0.0) * dense_.scale;
      }
      const double top = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (const double score : scores) sum += std::exp(score - top);
      for (std::int64_t key = 0; key <= t; ++key) {
        double& block = largest[static_cast<std::size_t>(key / kBlockSize)];
        block = std::max(block, std::exp(scores[static_cast<std::size_t>(key)] - top) / sum);
      }
    }
    const double sum = std::accumulate(largest.begin(), largest.end(), 0.0);
    for (double& value : largest) value /= sum;
    return largest;
  }

  const AttentionBenchOptions& options_;
  const DeviceRoof& roof_;
  std::int64_t length_, blocks_;
  RandomPrompt prompt_;
  DeviceArray<float> lse_, target_;
  DeviceArray<std::int32_t> page_table_;
  PrefillAttentionParams dense_;
  double dense_ms_ = 0;
};

}  // namespace

void bench_pooled_target(const AttentionBenchOptions& options, const AttentionReport& report) {
  const DeviceRoof roof = device_roof();
  for (const std::int64_t length : options.lengths) {
    SEER_CHECK(length > 0 && length % kBlockSize == 0,
               "--lengths {}: --op target expects positive multiples of {}", length, kBlockSize);
    Problem problem(options, roof, length);
    report(problem.time_dense());
    const AttentionTiming timing = problem.time_with_target();
    report(timing);
    require_right(timing);
  }
}

}  // namespace seer::cuda
