// RoPE, pooling and storing against float64.
#include "cuda/rope_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/device_array.h"
#include "ops/gate.h"
#include "support.h"
#include "support/inputs.h"

namespace seer::cuda {
namespace {

using test::normal;

constexpr int kBlock = 64;
constexpr float kEps = 1e-5f;

/// Angles of one position, as the tables hold them before rounding.
double angle_of(std::int64_t position, int pair, int dim) {
  return static_cast<double>(position) * std::pow(10000.0, -2.0 * pair / dim);
}

struct Case {
  std::string name;
  std::int64_t tokens = 200;
  std::int64_t first_position = 128;
  int heads = 8;
  int kv_heads = 2;
  int dim = 128;
  DType dtype = DType::kBF16;
  unsigned q_pools = kPoolAvg;
  unsigned k_pools = kPoolMax | kPoolMin | kPoolAvg;
  bool norm = false;
  bool in_place = false;
  bool pooled = true;
  bool rotated = false;  // the gate's queries
};

void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const std::int64_t tokens : {1, 63, 64, 65, 200, 517})
    list.push_back({.name = "tokens_" + std::to_string(tokens), .tokens = tokens});
  for (const int dim : {64, 128}) {
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      for (const bool norm : {false, true}) {
        list.push_back(
            {.name = std::string(name_of(dtype)) + "_d" + std::to_string(dim) + (norm ? "_norm" : ""),
             .dim = dim,
             .dtype = dtype,
             .norm = norm,
             .in_place = norm});
      }
    }
  }
  for (unsigned pools = 1; pools < 8; ++pools) {
    list.push_back(
        {.name = "pools_" + std::to_string(pools), .tokens = 100, .q_pools = pools, .k_pools = 8 - pools});
  }
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {5, 1}, {7, 7}, {28, 4}, {32, 8}}) {
    list.push_back({.name = "heads_" + std::to_string(heads) + "_" + std::to_string(kv_heads),
                    .tokens = 130,
                    .first_position = 0,
                    .heads = heads,
                    .kv_heads = kv_heads});
  }
  list.push_back({.name = "not_pooled", .pooled = false});
  for (const int dim : {64, 128}) {
    list.push_back({.name = "rotated_d" + std::to_string(dim),
                    .heads = 5,
                    .kv_heads = 1,
                    .dim = dim,
                    .norm = true,
                    .rotated = true});
  }
  return list;
}

/// Inputs, outputs and expected values of one call. Values are exact functions of the stored inputs.
class RopePool : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

/// Input head after its norm, in float64.
std::vector<double> normalised(const float* x, int dim, const std::vector<float>* weight) {
  std::vector<double> values(x, x + dim);
  if (weight == nullptr) return values;
  double sum = 0;
  for (const double v : values) sum += v * v;
  const double scale = 1 / std::sqrt(sum / dim + static_cast<double>(kEps));
  for (int d = 0; d < dim; ++d)
    values[static_cast<std::size_t>(d)] *= scale * (*weight)[static_cast<std::size_t>(d)];
  return values;
}

std::vector<double> rotated(const std::vector<double>& x, std::int64_t position) {
  const int dim = static_cast<int>(x.size()), half = dim / 2;
  std::vector<double> out(x.size());
  for (int pair = 0; pair < half; ++pair) {
    const double c = std::cos(angle_of(position, pair, dim)), s = std::sin(angle_of(position, pair, dim));
    const double low = x[static_cast<std::size_t>(pair)], high = x[static_cast<std::size_t>(half + pair)];
    out[static_cast<std::size_t>(pair)] = low * c - high * s;
    out[static_cast<std::size_t>(half + pair)] = high * c + low * s;
  }
  return out;
}

double half_ulp(DType dtype) { return dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11; }

/// Rotations in float32 add 4 roundings to values below 8; the type's own rounding is the rest.
::testing::AssertionResult rounded_right(const std::vector<float>& actual, const std::vector<double>& exact,
                                         DType dtype) {
  return test::all_close(actual, std::span<const double>(exact), 4e-6, half_ulp(dtype) * 1.01);
}

/// cos, sin tables on the device for `positions` positions.
struct Tables {
  Tables(int dim, std::int64_t positions) : cos(positions * dim / 2), sin(positions * dim / 2) {
    std::vector<double> frequencies;
    for (int pair = 0; pair < dim / 2; ++pair) frequencies.push_back(angle_of(1, pair, dim));
    const DeviceArray<double> inv_freq(frequencies);
    rope_table(inv_freq.data(), dim, 1, 0, 1, positions, cos.data(), sin.data(), nullptr);
    check(cudaDeviceSynchronize(), "rope_table");
  }
  DeviceArray<float> cos, sin;
};

/// Pages of [kv head][k, v][slot][dim] in shuffled order, poisoned with NaN.
struct Pages {
  Pages(std::int64_t count, int kv_heads, int dim)
      : kv_heads(kv_heads), dim(dim), memory(count * kv_heads * 2 * kBlock * dim) {
    memory.fill_bytes(0xff);
    table_host.resize(static_cast<std::size_t>(count));
    std::iota(table_host.begin(), table_host.end(), 0);
    std::shuffle(table_host.begin(), table_host.end(), std::mt19937(1));
    table = DeviceArray<std::int32_t>(table_host);
  }
  PagedCache cache() {
    return {.k = memory.data(),
            .v = memory.data() + kBlock * dim,
            .token_stride = dim,
            .head_stride = std::int64_t{2} * kBlock * dim,
            .page_stride = std::int64_t{2} * kBlock * dim * kv_heads,
            .page_table = table.data(),
            .page_table_stride = static_cast<std::int64_t>(table_host.size())};
  }
  /// Element index of slot `position` of a head's keys (0) or values (1).
  std::size_t index(std::size_t table_entry, int kv_head, int which, std::int64_t position) const {
    const std::int64_t page = table_host[table_entry];
    return static_cast<std::size_t>((((page * kv_heads + kv_head) * 2 + which) * kBlock + position % kBlock) *
                                    dim);
  }
  int kv_heads, dim;
  DeviceArray<std::uint16_t> memory;
  std::vector<std::int32_t> table_host;
  DeviceArray<std::int32_t> table;
};

TEST_P(RopePool, MatchesFloat64) {
  const Case& c = GetParam();
  const int all_heads = c.heads + 2 * c.kv_heads, dim = c.dim;
  const std::int64_t blocks = (c.tokens + kBlock - 1) / kBlock;
  const std::int64_t qkv_stride = (all_heads + 1) * dim;  // a gap after each token
  const auto stored = to_storage(normal(c.tokens * qkv_stride, 1), c.dtype);
  const auto inputs = from_storage(stored, c.dtype);
  const auto q_norm = normal(dim, 2), k_norm = normal(dim, 3);
  const DeviceArray<float> q_weight(q_norm), k_weight(k_norm);
  DeviceArray<std::uint16_t> qkv(stored);
  DeviceArray<std::uint16_t> q_out(c.tokens * c.heads * dim);
  q_out.fill_bytes(0xff);
  const Tables tables(dim, c.first_position + blocks * kBlock);
  Pages pages(c.first_position / kBlock + blocks + 1, c.kv_heads, dim);
  const std::int64_t q_width = pool_count(c.q_pools) * dim, k_width = pool_count(c.k_pools) * dim;
  DeviceArray<float> q_pooled(blocks * c.heads * q_width), k_pooled(blocks * c.kv_heads * k_width);
  q_pooled.fill_bytes(0xff);
  k_pooled.fill_bytes(0xff);
  DeviceArray<std::uint16_t> q_gate(q_pooled.size()), k_gate(k_pooled.size());
  q_gate.fill_bytes(0xff);
  k_gate.fill_bytes(0xff);
  DeviceArray<float> block_cos(blocks * dim / 2), block_sin(blocks * dim / 2);
  {
    std::vector<double> frequencies;
    for (int pair = 0; pair < dim / 2; ++pair) frequencies.push_back(angle_of(1, pair, dim));
    const DeviceArray<double> inv_freq(frequencies);
    rope_table(inv_freq.data(), dim, 1, c.first_position, kBlock, blocks, block_cos.data(), block_sin.data(),
               nullptr);
    check(cudaDeviceSynchronize(), "rope_table");
  }

  RopePoolParams p;
  p.qkv = qkv.data();
  p.qkv_stride = qkv_stride;
  p.q = c.in_place ? qkv.data() : q_out.data();
  p.q_stride = c.in_place ? qkv_stride : c.heads * dim;
  p.cache = pages.cache();
  p.cos = tables.cos.data();
  p.sin = tables.sin.data();
  p.q_norm = c.norm ? q_weight.data() : nullptr;
  p.k_norm = c.norm ? k_weight.data() : nullptr;
  p.norm_eps = kEps;
  p.dtype = c.dtype;
  p.num_tokens = c.tokens;
  p.first_position = c.first_position;
  p.num_heads = c.heads;
  p.num_kv_heads = c.kv_heads;
  p.head_dim = dim;
  p.q_pools = c.q_pools;
  p.k_pools = c.k_pools;
  p.q_pooled = c.pooled ? q_pooled.data() : nullptr;
  p.k_pooled = c.pooled ? k_pooled.data() : nullptr;
  p.q_gate = c.pooled ? q_gate.data() : nullptr;
  p.k_gate = c.pooled ? k_gate.data() : nullptr;
  p.block_cos = c.rotated ? block_cos.data() : nullptr;
  p.block_sin = c.rotated ? block_sin.data() : nullptr;
  rope_pool(p, nullptr);
  check(cudaDeviceSynchronize(), "rope_pool");

  const auto q_all = from_storage(c.in_place ? qkv.download() : q_out.download(), c.dtype);
  const auto cache = from_storage(pages.memory.download(), c.dtype);
  const auto size = static_cast<std::size_t>(dim);
  std::vector<float> actual;
  std::vector<double> exact;
  std::vector<double> expected_pools[2];
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t begin = block * kBlock, end = std::min(c.tokens, begin + kBlock);
    for (int head = 0; head < all_heads; ++head) {
      const bool is_query = head < c.heads, is_value = head >= c.heads + c.kv_heads;
      const std::vector<float>* weight = !c.norm || is_value ? nullptr : is_query ? &q_norm : &k_norm;
      std::vector<double> most(size, -INFINITY), least(size, INFINITY), sum(size, 0);
      for (std::int64_t t = begin; t < end; ++t) {
        const auto x = normalised(inputs.data() + t * qkv_stride + head * dim, dim, weight);
        const auto result = is_value ? x : rotated(x, c.first_position + t);
        exact.insert(exact.end(), result.begin(), result.end());
        const float* found =
            is_query ? q_all.data() + t * p.q_stride + head * dim
                     : cache.data() + pages.index(static_cast<std::size_t>(c.first_position / kBlock + block),
                                                  (head - c.heads) % c.kv_heads, is_value ? 1 : 0,
                                                  c.first_position + t);
        actual.insert(actual.end(), found, found + dim);
        for (std::size_t d = 0; d < size; ++d) {
          most[d] = std::max(most[d], x[d]);
          least[d] = std::min(least[d], x[d]);
          sum[d] += x[d] / static_cast<double>(end - begin);
        }
      }
      if (is_value) continue;
      const unsigned pools = is_query ? c.q_pools : c.k_pools;
      auto& pooled = expected_pools[is_query ? 0 : 1];
      if ((pools & kPoolMax) != 0) pooled.insert(pooled.end(), most.begin(), most.end());
      if ((pools & kPoolMin) != 0) pooled.insert(pooled.end(), least.begin(), least.end());
      if ((pools & kPoolAvg) != 0) pooled.insert(pooled.end(), sum.begin(), sum.end());
    }
  }
  EXPECT_TRUE(rounded_right(actual, exact, c.dtype));
  // Values whose place nobody asked for keep their poison.
  EXPECT_EQ(std::count_if(cache.begin(), cache.end(), [](float x) { return !std::isnan(x); }),
            c.tokens * c.kv_heads * 2 * dim);
  if (c.pooled) {
    EXPECT_TRUE(test::all_close(q_pooled.download(), std::span<const double>(expected_pools[0]), 2e-6, 2e-6));
    EXPECT_TRUE(test::all_close(k_pooled.download(), std::span<const double>(expected_pools[1]), 2e-6, 2e-6));
    std::vector<double>& q_expected = expected_pools[0];
    for (std::int64_t block = 0; c.rotated && block < blocks; ++block) {
      for (int head = 0; head < c.heads; ++head) {
        const auto at = q_expected.begin() + (block * c.heads + head) * dim;
        const auto result = rotated({at, at + dim}, c.first_position + block * kBlock);
        std::copy(result.begin(), result.end(), at);
      }
    }
    EXPECT_TRUE(rounded_right(from_storage(q_gate.download(), DType::kBF16), q_expected, DType::kBF16));
    EXPECT_TRUE(
        rounded_right(from_storage(k_gate.download(), DType::kBF16), expected_pools[1], DType::kBF16));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RopePool, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(RopeStore, MatchesFloat64) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  for (const int dim : {64, 128}) {
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      for (const bool norm : {false, true}) {
        const std::vector<std::int32_t> positions = {0, 63, 64, 200, 319};
        const int batch = static_cast<int>(positions.size()), heads = 7, kv_heads = 1, all = heads + 2;
        const int pages_each = 5;
        const auto stored = to_storage(normal(batch * all * dim, 4), dtype);
        const auto inputs = from_storage(stored, dtype);
        const auto q_norm = normal(dim, 2), k_norm = normal(dim, 3);
        const DeviceArray<float> q_weight(q_norm), k_weight(k_norm);
        const DeviceArray<std::uint16_t> qkv(stored);
        DeviceArray<std::uint16_t> q(batch * heads * dim);
        q.fill_bytes(0xff);
        const Tables tables(dim, 320);
        Pages pages(batch * pages_each, kv_heads, dim);
        const DeviceArray<std::int32_t> device_positions(positions);
        RopeStoreParams p;
        p.qkv = qkv.data();
        p.qkv_stride = all * dim;
        p.q = q.data();
        p.q_stride = heads * dim;
        p.cache = pages.cache();
        p.cache.page_table_stride = pages_each;
        p.cos = tables.cos.data();
        p.sin = tables.sin.data();
        p.q_norm = norm ? q_weight.data() : nullptr;
        p.k_norm = norm ? k_weight.data() : nullptr;
        p.norm_eps = kEps;
        p.dtype = dtype;
        p.num_heads = heads;
        p.num_kv_heads = kv_heads;
        p.head_dim = dim;
        p.batch = batch;
        p.positions = device_positions.data();
        rope_store(p, nullptr);
        check(cudaDeviceSynchronize(), "rope_store");
        const auto q_found = from_storage(q.download(), dtype);
        const auto cache = from_storage(pages.memory.download(), dtype);
        std::vector<float> actual;
        std::vector<double> exact;
        for (int b = 0; b < batch; ++b) {
          const std::int64_t position = positions[static_cast<std::size_t>(b)];
          for (int head = 0; head < all; ++head) {
            const bool is_value = head == heads + 1;
            const auto x = normalised(inputs.data() + (b * all + head) * dim, dim,
                                      !norm || is_value ? nullptr
                                      : head < heads    ? &q_norm
                                                        : &k_norm);
            const auto result = is_value ? x : rotated(x, position);
            exact.insert(exact.end(), result.begin(), result.end());
            const float* found =
                head < heads
                    ? q_found.data() + (b * heads + head) * dim
                    : cache.data() + pages.index(static_cast<std::size_t>(b * pages_each + position / 64), 0,
                                                 is_value ? 1 : 0, position);
            actual.insert(actual.end(), found, found + dim);
          }
        }
        EXPECT_TRUE(rounded_right(actual, exact, dtype)) << dim << name_of(dtype) << norm;
        EXPECT_EQ(std::count_if(cache.begin(), cache.end(), [](float x) { return !std::isnan(x); }),
                  batch * 2 * dim);
      }
    }
  }
}

TEST(RopeTable, MatchesFloat64) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  const int dim = 96;
  std::vector<double> frequencies;
  for (int pair = 0; pair < dim / 2; ++pair) frequencies.push_back(std::pow(500000.0, -2.0 * pair / dim));
  const DeviceArray<double> inv_freq(frequencies);
  const std::int64_t first = 1000000, step = 64, count = 100;
  const double factor = 1.25;
  DeviceArray<float> cos(count * dim / 2), sin(count * dim / 2);
  cos.fill_bytes(0xff);
  sin.fill_bytes(0xff);
  rope_table(inv_freq.data(), dim, factor, first, step, count, cos.data(), sin.data(), nullptr);
  std::vector<double> expected_cos, expected_sin;
  for (std::int64_t i = 0; i < count; ++i) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(first + i * step) * frequency;
      expected_cos.push_back(std::cos(angle) * factor);
      expected_sin.push_back(std::sin(angle) * factor);
    }
  }
  EXPECT_TRUE(test::all_close(cos.download(), std::span<const double>(expected_cos), 1e-9, 0x1p-24));
  EXPECT_TRUE(test::all_close(sin.download(), std::span<const double>(expected_sin), 1e-9, 0x1p-24));
}

TEST(RopePoolAlone, RefusesWhatItDoesNotSupport) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  DeviceArray<std::uint16_t> memory(4096);
  DeviceArray<float> table(4096);
  DeviceArray<std::int32_t> pages(1);
  RopePoolParams valid;
  valid.qkv = valid.q = valid.cache.k = valid.cache.v = memory.data();
  valid.cos = valid.sin = table.data();
  valid.cache.page_table = pages.data();
  valid.num_heads = valid.num_kv_heads = 1;
  valid.head_dim = 64;
  rope_pool(valid, nullptr);  // no tokens: nothing to do
  const auto refused = [&](auto change) {
    RopePoolParams p = valid;
    change(p);
    EXPECT_THROW(rope_pool(p, nullptr), Error);
  };
  refused([](auto& p) { p.head_dim = 96; });
  refused([](auto& p) { p.dtype = DType::kF32; });
  refused([](auto& p) { p.num_heads = 0; });
  refused([](auto& p) { p.first_position = 32; });
  refused([](auto& p) { p.qkv = nullptr; });
  refused([](auto& p) { p.qkv_stride = 4; });
  refused([](auto& p) { p.cache.page_table = nullptr; });
  refused([&](auto& p) { p.q_pooled = table.data(); });
}

}  // namespace
}  // namespace seer::cuda
