// The gate's projections and selection against float64.
#include "cuda/gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/context.h"
#include "cuda/device_array.h"
#include "ops/block_mask.h"
#include "ops/select.h"
#include "support.h"
#include "support/inputs.h"

namespace seer::cuda {
namespace {

using test::normal;

std::vector<float> rounded(const std::vector<float>& values) {
  return from_storage(to_storage(values, DType::kBF16), DType::kBF16);
}

class Gate : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

struct Projection {
  std::int64_t n;
  int x_heads, heads, in_dim, out_dim;
};

TEST_F(Gate, ProjectMatchesFloat64) {
  const Projection shapes[] = {{1, 8, 32, 384, 128},   {65, 2, 8, 384, 128},  {128, 8, 32, 384, 128},
                               {500, 2, 8, 192, 64},   {130, 3, 3, 128, 128}, {63, 1, 7, 384, 64},
                               {64, 1, 5, 128, 16},    {70, 2, 4, 512, 256},  {33, 2, 2, 64, 96},
                               {1700, 8, 16, 64, 16},  {1650, 8, 32, 64, 48}, {1100, 4, 32, 512, 128},
                               {900, 1, 200, 64, 128}, {700, 8, 64, 384, 64}};
  for (const Projection& s : shapes) {
    const int half = s.out_dim / 2;
    const auto x = rounded(normal(s.n * s.x_heads * s.in_dim, 1, 1.0f));
    const auto w = rounded(normal(std::int64_t{s.heads} * s.in_dim * s.out_dim, 2, 0.1f));
    const auto angles = normal(s.n * half, 3, 3.0f);
    std::vector<float> cos, sin;
    for (const float a : angles) cos.push_back(std::cos(a)), sin.push_back(std::sin(a));
    const DeviceArray<float> device_cos(cos), device_sin(sin);
    const DeviceArray<std::uint16_t> device_x(to_storage(x, DType::kBF16)),
        device_w(to_storage(w, DType::kBF16));
    const std::int64_t head_stride = s.n * s.out_dim + 8;
    DeviceArray<std::uint16_t> out(s.heads * head_stride);
    out.fill_bytes(0xff);
    GateProjectParams p;
    p.x = device_x.data();
    p.n = s.n;
    p.x_heads = s.x_heads;
    p.in_dim = s.in_dim;
    p.w = device_w.data();
    p.heads = s.heads;
    p.out_dim = s.out_dim;
    p.cos = device_cos.data();
    p.sin = device_sin.data();
    p.out = out.data();
    p.out_head_stride = head_stride;
    gate_project(p, nullptr);
    check(cudaDeviceSynchronize(), "gate_project");

    const auto found = from_storage(out.download(), DType::kBF16);
    std::vector<float> actual;
    std::vector<double> exact;
    for (int h = 0; h < s.heads; ++h) {
      const int x_head = h / (s.heads / s.x_heads);
      for (std::int64_t i = 0; i < s.n; ++i) {
        const float* row = x.data() + (i * s.x_heads + x_head) * s.in_dim;
        std::vector<double> y(static_cast<std::size_t>(s.out_dim), 0);
        for (int k = 0; k < s.in_dim; ++k) {
          const float* weight = w.data() + (std::int64_t{h} * s.in_dim + k) * s.out_dim;
          for (int d = 0; d < s.out_dim; ++d)
            y[static_cast<std::size_t>(d)] += static_cast<double>(row[k]) * static_cast<double>(weight[d]);
        }
        std::vector<double> result(y.size());
        for (int d = 0; d < half; ++d) {
          const double c = cos[static_cast<std::size_t>(i * half + d)],
                       sn = sin[static_cast<std::size_t>(i * half + d)];
          const double low = y[static_cast<std::size_t>(d)], high = y[static_cast<std::size_t>(half + d)];
          result[static_cast<std::size_t>(d)] = low * c - high * sn;
          result[static_cast<std::size_t>(half + d)] = high * c + low * sn;
        }
        exact.insert(exact.end(), result.begin(), result.end());
        const float* from = found.data() + h * head_stride + i * s.out_dim;
        actual.insert(actual.end(), from, from + s.out_dim);
      }
    }
    // Sums of up to 512 products in float32, and the rounding of the result.
    EXPECT_TRUE(test::all_close(actual, std::span<const double>(exact), 2e-5, 0x1p-8 * 1.01))
        << s.n << " rows, " << s.heads << " heads, " << s.in_dim << " x " << s.out_dim;
    EXPECT_EQ(std::count_if(found.begin(), found.end(), [](float v) { return !std::isnan(v); }),
              static_cast<std::int64_t>(actual.size()));
  }
}

struct Selection {
  std::string name;
  std::int64_t first_row, rows;
  int heads, k_heads, dim;
  std::int64_t extra_words = 0;
};

void PrintTo(const Selection& s, std::ostream* stream) { *stream << s.name; }

std::vector<Selection> selections() {
  return {{"one_block", 0, 1, 4, 4, 128},
          {"blocks_63", 0, 63, 4, 1, 128},
          {"blocks_64", 0, 64, 5, 1, 64},
          {"blocks_65", 0, 65, 7, 1, 128},
          {"blocks_500", 0, 500, 4, 4, 128, 2},
          {"dim_96", 0, 200, 4, 2, 96},
          {"dim_16", 0, 70, 2, 2, 16},
          {"dim_256", 0, 140, 2, 1, 256},
          {"chunk", 463, 37, 4, 4, 128},
          {"chunk_of_one", 500, 1, 7, 1, 64},
          {"blocks_700", 0, 700, 2, 2, 128},
          {"blocks_1100", 900, 200, 2, 2, 64},
          {"blocks_2048", 0, 2048, 1, 1, 128},
          {"chunk_2000", 1920, 100, 4, 1, 128},
          {"chunk_2500", 2450, 50, 2, 1, 64},
          {"blocks_4096", 4030, 66, 2, 2, 128},
          {"some_heads", 0, 200, 40, 8, 128},
          {"some_heads_d64", 300, 190, 46, 46, 64},
          {"some_long_rows", 1900, 148, 48, 8, 128},
          {"many_heads", 100, 260, 96, 24, 128},
          {"many_heads_d64", 0, 300, 90, 45, 64}};
}

class GateSelectCase : public ::testing::TestWithParam<Selection> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

/// Scores of one head's rows in float64, and their softmax.
struct Scores {
  std::vector<double> score;
  std::vector<float> probability;  // as ops/select.h takes them; 0 after the diagonal
};

Scores score(const Selection& s, const std::vector<float>& q, const std::vector<float>& k, int head) {
  const std::int64_t n = s.first_row + s.rows;
  Scores result;
  result.score.resize(static_cast<std::size_t>(s.rows * n));
  result.probability.resize(result.score.size());
  const float* keys = k.data() + head / (s.heads / s.k_heads) * n * s.dim;
  for (std::int64_t i = 0; i < s.rows; ++i) {
    const float* query = q.data() + (i * s.heads + head) * s.dim;
    double* row = result.score.data() + i * n;
    double most = -INFINITY, sum = 0;
    const std::int64_t causal = s.first_row + i + 1;
    for (std::int64_t j = 0; j < causal; ++j) {
      double dot = 0;
      for (int d = 0; d < s.dim; ++d)
        dot += static_cast<double>(query[d]) * static_cast<double>(keys[j * s.dim + d]);
      row[j] = dot / std::sqrt(static_cast<double>(s.dim));
      most = std::max(most, row[j]);
    }
    for (std::int64_t j = 0; j < causal; ++j) sum += std::exp(row[j] - most);
    for (std::int64_t j = 0; j < causal; ++j)
      result.probability[static_cast<std::size_t>(i * n + j)] =
          static_cast<float>(std::exp(row[j] - most) / sum);
  }
  return result;
}

TEST_P(GateSelectCase, KeepsTheBlocksOfFloat64) {
  const Selection& s = GetParam();
  const std::int64_t n = s.first_row + s.rows, words = (n + 63) / 64 + s.extra_words;
  const auto q = rounded(normal(s.rows * s.heads * s.dim, 1, 1.4f));
  const auto k = rounded(normal(s.k_heads * n * s.dim, 2, 1.4f));
  const DeviceArray<std::uint16_t> device_q(to_storage(q, DType::kBF16)),
      device_k(to_storage(k, DType::kBF16));
  std::vector<Scores> scores;
  for (int h = 0; h < s.heads; ++h) scores.push_back(score(s, q, k, h));
  const double mean = 1.0 / static_cast<double>(n);
  const SelectParams params[] = {
      {SelectRule::kThreshold, mean, false, n}, {SelectRule::kThreshold, 5 * mean, true, n},
      {SelectRule::kNzRatio, 0.1, false, n},    {SelectRule::kNzRatio, 0.6, true, n},
      {SelectRule::kTopP, 0.8, false, n},       {SelectRule::kResidual, 0.5 * mean, false, n}};
  for (const SelectParams& select : params) {
    const std::string what =
        "rule " + std::to_string(static_cast<int>(select.rule)) + ", value " + std::to_string(select.value);
    DeviceArray<std::uint64_t> mask(s.heads * s.rows * words);
    DeviceArray<std::uint64_t> counter(std::vector<std::uint64_t>{5});
    mask.fill_bytes(0xff);
    GateSelectParams p;
    p.q = device_q.data();
    p.q_head_stride = s.dim;
    p.q_row_stride = s.heads * s.dim;
    p.k = device_k.data();
    p.k_head_stride = n * s.dim;
    p.heads = s.heads;
    p.k_heads = s.k_heads;
    p.dim = s.dim;
    p.first_row = s.first_row;
    p.rows = s.rows;
    p.select = select;
    p.mask = mask.data();
    p.mask_words = words;
    p.selected_blocks = counter.data();
    gate_select(p, nullptr);
    const auto bits = mask.download();

    // Half a unit in the last place of half precision, where scores are kept in it.
    const bool recomputes = select.rule == SelectRule::kThreshold && (s.dim == 64 || s.dim == 128);
    const double resolution = n > 1024 && !recomputes ? 0x1p-11 : 0x1p-22;
    std::int64_t kept = 0, expected_kept = 0, different = 0;
    for (int h = 0; h < s.heads; ++h) {
      const Scores& of_head = scores[static_cast<std::size_t>(h)];
      std::vector<float> input = of_head.probability;
      if (select.rule == SelectRule::kNzRatio) input.assign(of_head.score.begin(), of_head.score.end());
      BlockMask expected(1, s.first_row, s.rows);
      seer::select_blocks(Context(), input.data(), n, select, expected);
      expected_kept += expected.selected_blocks();
      for (std::int64_t i = 0; i < s.rows; ++i) {
        const std::uint64_t* row = bits.data() + (h * s.rows + i) * words;
        const double* row_scores = of_head.score.data() + i * n;
        const std::int64_t causal = s.first_row + i + 1;
        const auto has = [&](std::int64_t j) { return (row[j / 64] >> (j % 64) & 1) != 0; };
        double least_kept = INFINITY, most_dropped = -INFINITY;
        for (std::int64_t j = 0; j < causal; ++j) {
          if (expected.test(0, i, j)) {
            least_kept = std::min(least_kept, row_scores[j]);
          } else {
            most_dropped = std::max(most_dropped, row_scores[j]);
          }
        }
        bool any = false;
        for (std::int64_t j = 0; j < words * 64; ++j) {
          any |= has(j);
          kept += has(j);
          if (j >= causal) {
            ASSERT_FALSE(has(j)) << what << ": head " << h << ", row " << i << ", block " << j;
            continue;
          }
          if (has(j) == expected.test(0, i, j)) continue;
          ++different;
          // A block on the other side of the cut: no further from it than scores of this size are resolved.
          const double distance = has(j) ? most_dropped - row_scores[j] : row_scores[j] - least_kept;
          const double bound = 4 * resolution * std::max(1.0, std::abs(row_scores[j])) + 1e-5;
          EXPECT_LE(distance, bound) << what << ": head " << h << ", row " << i << ", block " << j
                                     << ", score " << row_scores[j];
        }
        EXPECT_TRUE(any) << what << ": head " << h << ", row " << i;
      }
    }
    EXPECT_LE(different, 0.005 * static_cast<double>(std::max(kept, expected_kept))) << what << ", " << kept;
    EXPECT_EQ(counter.download()[0], 5 + static_cast<std::uint64_t>(kept)) << what;
    RecordProperty(
        "different_of_" + std::to_string(kept) + "_rule_" + std::to_string(static_cast<int>(select.rule)),
        static_cast<int>(different));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GateSelectCase, ::testing::ValuesIn(selections()),
                         [](const auto& info) { return info.param.name; });

/// Scores of few values, all equal or spread by one that is far away: what is left to choose among equals.
TEST_F(Gate, KeepsTheLaterOfEqualBlocks) {
  constexpr std::int64_t kRows = 500;
  constexpr int kDim = 128, kWords = (kRows + 63) / 64;
  for (const std::string_view kind : {"all equal", "five values", "one far away"}) {
    std::vector<float> q(kRows * kDim, 0.0f), k(kRows * kDim, 0.0f);
    for (std::int64_t i = 0; i < kRows; ++i) {
      q[static_cast<std::size_t>(i * kDim)] = 1;
      k[static_cast<std::size_t>(i * kDim)] = kind == "five values"    ? static_cast<float>(i * 7 % 5)
                                              : kind == "one far away" ? (i == 3 ? 500.0f : 0.0f)
                                                                       : 1.0f;
    }
    const Selection shape = {"", 0, kRows, 1, 1, kDim};
    const Scores scores = score(shape, q, k, 0);
    // Every head has the same queries; their number decides how the rows are shared out.
    constexpr int kMostHeads = 60;
    std::vector<float> all_q;
    for (int head = 0; head < kMostHeads; ++head) all_q.insert(all_q.end(), q.begin(), q.end());
    const DeviceArray<std::uint16_t> device_q(to_storage(all_q, DType::kBF16)),
        device_k(to_storage(k, DType::kBF16));
    for (const SelectParams& select : {SelectParams{SelectRule::kNzRatio, 0.3, false, kRows},
                                       SelectParams{SelectRule::kTopP, 0.7003, false, kRows},
                                       SelectParams{SelectRule::kResidual, 0.0007, false, kRows}}) {
      for (const int heads : {1, 20, kMostHeads}) {
        DeviceArray<std::uint64_t> mask(heads * kRows * kWords);
        mask.fill_bytes(0xff);
        gate_select({.q = device_q.data(),
                     .q_head_stride = kRows * kDim,
                     .q_row_stride = kDim,
                     .k = device_k.data(),
                     .k_head_stride = kRows * kDim,
                     .heads = heads,
                     .k_heads = 1,
                     .dim = kDim,
                     .rows = kRows,
                     .select = select,
                     .mask = mask.data(),
                     .mask_words = kWords},
                    nullptr);
        const auto bits = mask.download();
        std::vector<float> input = scores.probability;
        if (select.rule == SelectRule::kNzRatio) input.assign(scores.score.begin(), scores.score.end());
        BlockMask expected(1, 0, kRows);
        seer::select_blocks(Context(), input.data(), kRows, select, expected);
        for (std::int64_t i = 0; i < heads * kRows; ++i) {
          int different = 0;
          for (std::int64_t j = 0; j < kRows; ++j)
            different += ((bits[static_cast<std::size_t>(i * kWords + j / 64)] >> (j % 64) & 1) != 0) !=
                         expected.test(0, i % kRows, j);
          // A mass that reaches the value with one block more or less rounds either way.
          EXPECT_LE(different, select.rule == SelectRule::kNzRatio ? 0 : 1)
              << kind << ", " << heads << " heads, rule " << static_cast<int>(select.rule) << ", row " << i;
        }
      }
    }
  }
}

TEST_F(Gate, RefusesWhatItDoesNotSupport) {
  DeviceArray<std::uint16_t> memory(1 << 14);
  DeviceArray<float> floats(1 << 14);
  DeviceArray<std::uint64_t> mask(64);
  GateProjectParams project;
  project.cos = project.sin = floats.data();
  project.x = project.w = project.out = memory.data();
  project.x_heads = project.heads = 2;
  project.in_dim = project.out_dim = 64;
  gate_project(project, nullptr);  // no rows: nothing to do
  const auto refused = [&](auto params, auto change, auto run) {
    change(params);
    EXPECT_THROW(run(params), Error);
  };
  const auto run_project = [](const GateProjectParams& p) { gate_project(p, nullptr); };
  refused(
      project, [](auto& p) { p.out_dim = 24; }, run_project);
  refused(
      project, [](auto& p) { p.out_dim = 272; }, run_project);
  refused(
      project, [](auto& p) { p.in_dim = 96; }, run_project);
  refused(
      project, [](auto& p) { p.heads = 3; }, run_project);
  refused(
      project, [](auto& p) { p.w = nullptr; }, run_project);
  refused(
      project, [](auto& p) { p.x = nullptr; }, run_project);
  GateSelectParams select;
  select.q = select.k = memory.data();
  select.q_head_stride = select.k_head_stride = 8 * 64;
  select.q_row_stride = 64;
  select.heads = select.k_heads = 2;
  select.dim = 64;
  select.rows = 8;
  select.select = {SelectRule::kThreshold, 0.1, false, 8};
  select.mask = mask.data();
  select.mask_words = 1;
  const auto run_select = [](const GateSelectParams& p) { gate_select(p, nullptr); };
  refused(
      select, [](auto& p) { p.dim = 40; }, run_select);
  refused(
      select, [](auto& p) { p.select.rule = SelectRule::kDense; }, run_select);
  refused(
      select, [](auto& p) { p.k_heads = 3; }, run_select);
  refused(
      select, [](auto& p) { p.mask_words = 0; }, run_select);
  refused(
      select, [](auto& p) { p.first_row = kMaxSelectBlocks, p.mask_words = 100; }, run_select);
}

}  // namespace
}  // namespace seer::cuda
