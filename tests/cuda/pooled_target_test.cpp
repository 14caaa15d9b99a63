// Dense attention with the pooled target, which is compared with float64.
#include "cuda/pooled_target.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/device_array.h"
#include "ops/block_mask.h"
#include "support.h"
#include "support/compare.h"

namespace seer::cuda {
namespace {

struct Case {
  std::string name;
  std::int64_t num_tokens = 0;
  std::int64_t q_offset = 0;
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 128;
  DType dtype = DType::kBF16;
  float magnitude = 1.0f;
};

void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  std::vector<Case> list;
  // Groups of one head, whose pairs are two rows; 32 key blocks a write: both sides, odd and even rows.
  for (const int tokens : {1, 2, 63, 64, 65, 127, 129, 300, 511, 513, 577, 1000, 2047, 2049, 2200})
    list.push_back({.name = "tokens_" + std::to_string(tokens), .num_tokens = tokens, .num_heads = 2});
  for (const int group : {2, 3}) {
    for (const int tokens : {1, 64, 65, 129, 2049}) {
      list.push_back({.name = "tokens_" + std::to_string(tokens) + "_gqa_" + std::to_string(group),
                      .num_tokens = tokens,
                      .num_heads = group,
                      .num_kv_heads = 1});
    }
  }
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int dim : {64, 128}) {
      const std::string suffix = std::string("_") + std::string(name_of(dtype)) + "_d" + std::to_string(dim);
      list.push_back({.name = "plain" + suffix, .num_tokens = 717, .head_dim = dim, .dtype = dtype});
      list.push_back({.name = "large_values" + suffix,
                      .num_tokens = 717,
                      .head_dim = dim,
                      .dtype = dtype,
                      .magnitude = 3.0f});
      list.push_back({.name = "gqa_5" + suffix,
                      .num_tokens = 400,
                      .num_heads = 10,
                      .head_dim = dim,
                      .dtype = dtype,
                      .magnitude = 3.0f});
    }
  }
  for (const int group : {1, 2, 3, 4, 5, 7, 8})
    list.push_back({.name = "gqa_" + std::to_string(group), .num_tokens = 450, .num_heads = 2 * group});
  for (const int offset : {64, 512, 640, 4096})
    list.push_back(
        {.name = "offset_" + std::to_string(offset), .num_tokens = 200, .q_offset = offset, .num_heads = 6});
  list.push_back({.name = "one_query_of_many", .num_tokens = 1, .q_offset = 3008});
  list.push_back({.name = "one_query_of_many_gqa_7",
                  .num_tokens = 1,
                  .q_offset = 3008,
                  .num_heads = 7,
                  .num_kv_heads = 1});
  // Several pairs a CTA, so that rings and scratch slots come round: more than 400 of each.
  list.push_back(
      {.name = "many_items", .num_tokens = 900, .num_heads = 56, .num_kv_heads = 8, .head_dim = 64});
  list.push_back(
      {.name = "many_items_even", .num_tokens = 900, .num_heads = 56, .num_kv_heads = 14, .head_dim = 64});
  list.push_back(
      {.name = "heads_alone", .num_tokens = 520, .q_offset = 128, .num_heads = 3, .num_kv_heads = 3});
  return list;
}

/// A case's inputs on the host, rounded to its type, and the definition's result.
struct Exact {
  explicit Exact(const Case& c) {
    const std::int64_t keys = c.q_offset + c.num_tokens;
    std::vector<float> values(static_cast<std::size_t>(c.num_tokens * c.num_heads * c.head_dim));
    test::fill_normal(values, 1, c.magnitude);
    q = to_storage(values, c.dtype);
    values.resize(static_cast<std::size_t>(keys * c.num_kv_heads * c.head_dim));
    test::fill_normal(values, 2, c.magnitude);
    k = to_storage(values, c.dtype);
    const std::vector<float> q_values = from_storage(q, c.dtype), k_values = from_storage(k, c.dtype);
    const std::int64_t rows = blocks_for(c.num_tokens), blocks = blocks_for(keys);
    target.assign(static_cast<std::size_t>(c.num_heads * rows * blocks), 0.0);
    std::vector<double> scores(static_cast<std::size_t>(keys));
    for (int h = 0; h < c.num_heads; ++h) {
      const int g = h / (c.num_heads / c.num_kv_heads);
      for (std::int64_t t = 0; t < c.num_tokens; ++t) {
        const std::int64_t causal = c.q_offset + t + 1;
        double top = -INFINITY, sum = 0;
        for (std::int64_t key = 0; key < causal; ++key) {
          const float* a = q_values.data() + (t * c.num_heads + h) * c.head_dim;
          const float* b = k_values.data() + (key * c.num_kv_heads + g) * c.head_dim;
          double score = 0;
          for (int d = 0; d < c.head_dim; ++d) score += static_cast<double>(a[d]) * static_cast<double>(b[d]);
          scores[static_cast<std::size_t>(key)] = score * scale(c);
          top = std::max(top, score * scale(c));
        }
        for (std::int64_t key = 0; key < causal; ++key)
          sum += std::exp(scores[static_cast<std::size_t>(key)] - top);
        const double row_lse = top + std::log(sum);
        double* row = target.data() + (h * rows + t / kBlockSize) * blocks;
        for (std::int64_t key = 0; key < causal; ++key)
          row[key / kBlockSize] =
              std::max(row[key / kBlockSize], std::exp(scores[static_cast<std::size_t>(key)] - row_lse));
      }
    }
    for (std::int64_t row = 0; row < c.num_heads * rows; ++row) {
      double* values_of = target.data() + row * blocks;
      const double sum = std::accumulate(values_of, values_of + blocks, 0.0);
      for (std::int64_t j = 0; j < blocks; ++j) values_of[j] /= sum;
    }
  }
  static float scale(const Case& c) { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }

  std::vector<std::uint16_t> q, k;
  std::vector<double> target;  // [num_heads, rows, key blocks]
};

/// Keys spread over a pool of pages, NaN in those that nobody owns.
struct Pages {
  Pages(const Case& c, const std::vector<std::uint16_t>& k) {
    const std::int64_t keys = c.q_offset + c.num_tokens, blocks = blocks_for(keys);
    num_pages = blocks + 3;
    std::vector<std::int32_t> order(static_cast<std::size_t>(num_pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(3));
    // [page][head][K, V][token][dim]
    std::vector<std::uint16_t> pool(static_cast<std::size_t>(num_pages * page_stride(c)), 0xffff);
    std::vector<float> v(static_cast<std::size_t>(c.num_kv_heads * kBlockSize * c.head_dim));
    test::fill_normal(v, 3);
    const std::vector<std::uint16_t> v_bits = to_storage(v, c.dtype);
    for (std::int64_t token = 0; token < blocks * kBlockSize; ++token) {
      for (int g = 0; g < c.num_kv_heads; ++g) {
        std::uint16_t* to = pool.data() +
                            order[static_cast<std::size_t>(token / kBlockSize)] * page_stride(c) +
                            2 * g * kBlockSize * c.head_dim + token % kBlockSize * c.head_dim;
        if (token < keys)
          std::copy_n(k.data() + (token * c.num_kv_heads + g) * c.head_dim, c.head_dim, to);
        else
          std::fill_n(to, c.head_dim, std::uint16_t{0x4000});  // finite and large
        std::copy_n(v_bits.data() + (g * kBlockSize + token % kBlockSize) * c.head_dim, c.head_dim,
                    to + kBlockSize * c.head_dim);
      }
    }
    storage = DeviceArray<std::uint16_t>(pool);
    order.resize(static_cast<std::size_t>(blocks));
    table = DeviceArray<std::int32_t>(order);
  }
  static std::int64_t page_stride(const Case& c) { return 2 * c.num_kv_heads * kBlockSize * c.head_dim; }

  std::int64_t num_pages = 0;
  DeviceArray<std::uint16_t> storage;
  DeviceArray<std::int32_t> table;
};

class PooledTarget : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

/// A case on the device: inputs, and poisoned outputs, the target with room after it.
struct Problem {
  explicit Problem(const Case& c)
      : exact(c),
        pages(c, exact.k),
        rows(blocks_for(c.num_tokens)),
        blocks(blocks_for(c.q_offset + c.num_tokens)),
        q(exact.q),
        out(q.size()),
        lse(c.num_heads * c.num_tokens),
        target(c.num_heads * rows * (blocks + kUnused) + kGuard),
        cu_seqlens_q(std::vector<std::int32_t>{0, static_cast<std::int32_t>(c.num_tokens)}),
        cu_seqlens_k(std::vector<std::int32_t>{0, static_cast<std::int32_t>(c.q_offset + c.num_tokens)}),
        counters(2),
        workspace(static_cast<std::int64_t>(pooled_target_workspace(blocks + kUnused))) {
    const std::int64_t q_row = static_cast<std::int64_t>(c.num_heads) * c.head_dim;
    params = {.q = q.data(),
              .q_token_stride = q_row,
              .q_head_stride = c.head_dim,
              .out = out.data(),
              .out_token_stride = q_row,
              .out_head_stride = c.head_dim,
              .lse = lse.data(),
              .kv = {.k = pages.storage.data(),
                     .v = pages.storage.data() + kBlockSize * c.head_dim,
                     .token_stride = c.head_dim,
                     .head_stride = 2 * kBlockSize * c.head_dim,
                     .page_table = pages.table.data(),
                     .page_table_stride = blocks,
                     .page_stride = Pages::page_stride(c),
                     .num_pages = pages.num_pages},
              .dtype = c.dtype,
              .num_heads = c.num_heads,
              .num_kv_heads = c.num_kv_heads,
              .head_dim = c.head_dim,
              .scale = Exact::scale(c),
              .cu_seqlens_q = cu_seqlens_q.data(),
              .cu_seqlens_k = cu_seqlens_k.data(),
              .total_q = c.num_tokens,
              .max_rows = rows,
              .workspace = counters.data()};
    output = {.target = target.data(),
              .stride = blocks + kUnused,
              .q_offset = c.q_offset,
              .workspace = workspace.data()};
    counters.fill_bytes(0);
    workspace.fill_bytes(0xff);
    poison();
  }

  void poison() {
    out.fill_bytes(0xff);
    lse.fill_bytes(0xff);
    target.fill_bytes(0xff);
  }

  std::vector<float> pooled_target() const {
    std::vector<float> values = target.download();
    for (std::int64_t i = 0; i < kGuard; ++i)
      EXPECT_TRUE(std::isnan(values[static_cast<std::size_t>(target.size() - 1 - i)])) << "after the target";
    values.resize(values.size() - kGuard);
    return values;
  }

  /// A float32 score of magnitude up to 100 is off by 1e-5 in places; exponentials below 1e-38 are 0.
  void expect_exact(const std::vector<float>& actual) const {
    double largest = 0;
    for (std::int64_t row = 0; row < params.num_heads * rows; ++row) {
      const std::int64_t diagonal = output.q_offset / kBlockSize + row % rows;
      for (std::int64_t j = 0; j < output.stride; ++j) {
        const float value = actual[static_cast<std::size_t>(row * output.stride + j)];
        if (j > diagonal) {
          ASSERT_EQ(value, 0.0f) << "row " << row << ", block " << j;
          continue;
        }
        const double expected = exact.target[static_cast<std::size_t>(row * blocks + j)];
        const double error = std::abs(value - expected) / (expected + 1e-30);
        ASSERT_LE(error, 2e-4) << "row " << row << ", block " << j << ": " << value << ", expected "
                               << expected;
        largest = std::max(largest, error);
      }
    }
    ::testing::Test::RecordProperty("error", ::testing::PrintToString(largest));
  }

  static constexpr std::int64_t kGuard = 64, kUnused = 5;
  Exact exact;
  Pages pages;
  std::int64_t rows, blocks;
  DeviceArray<std::uint16_t> q, out;
  DeviceArray<float> lse, target;
  DeviceArray<std::int32_t> cu_seqlens_q, cu_seqlens_k, counters;
  DeviceArray<std::uint8_t> workspace;
  PrefillAttentionParams params;
  PooledTargetOutput output;
};

TEST_P(PooledTarget, MatchesFloat64AndLeavesAttentionAsItIs) {
  Problem problem(GetParam());
  attention_prefill(problem.params, nullptr);
  const std::vector<std::uint16_t> plain_out = problem.out.download();
  const std::vector<float> plain_lse = problem.lse.download();
  problem.poison();
  attention_with_target(problem.params, problem.output, nullptr);
  const std::vector<float> actual = problem.pooled_target();
  problem.expect_exact(actual);
  EXPECT_EQ(problem.out.download(), plain_out);
  EXPECT_EQ(problem.lse.download(), plain_lse);
  problem.poison();
  attention_with_target(problem.params, problem.output, nullptr);
  EXPECT_EQ(problem.pooled_target(), actual);
}

INSTANTIATE_TEST_SUITE_P(Cases, PooledTarget, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(PooledTargetParams, AreChecked) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  Problem problem({.num_tokens = 200, .q_offset = 64});
  using Params = PrefillAttentionParams;
  using Output = PooledTargetOutput;
  const auto refused = [&](const std::function<void(Params&, Output&)>& change) {
    Params params = problem.params;
    Output output = problem.output;
    change(params, output);
    EXPECT_THROW(attention_with_target(params, output, nullptr), Error);
  };
  const std::uint64_t mask = 0;
  refused([](Params& p, Output&) { p.dtype = DType::kF32; });
  refused([](Params& p, Output&) { p.head_dim = 96; });
  refused([](Params& p, Output&) { p.num_heads = 3; });
  refused([](Params& p, Output&) { p.num_kv_heads = 0; });
  refused([](Params& p, Output&) { p.scale = 0; });
  refused([](Params& p, Output&) { p.batch = 2; });
  refused([](Params& p, Output&) { p.total_q = -1; });
  refused([](Params& p, Output&) { p.max_rows = 3; });
  refused([](Params& p, Output&) { p.q_token_stride = 7; });
  refused([](Params& p, Output&) { p.kv.page_table = nullptr; });
  refused([](Params& p, Output&) { p.kv.num_pages = 0; });
  refused([](Params& p, Output&) { p.lse = nullptr; });
  refused([&](Params& p, Output&) { p.mask = &mask; });
  refused([](Params&, Output& o) { o.q_offset = 10; });
  refused([](Params&, Output& o) { o.stride = 4; });
  refused([](Params&, Output& o) { o.target = nullptr; });
  refused([](Params&, Output& o) { o.workspace = nullptr; });
  problem.params.total_q = problem.params.max_rows = 0;
  attention_with_target(problem.params, problem.output, nullptr);
}

}  // namespace
}  // namespace seer::cuda
