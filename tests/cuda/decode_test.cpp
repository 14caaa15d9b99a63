// The decode kernel against the float64 reference.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/device_array.h"
#include "cuda/reference.h"
#include "ops/block_mask.h"
#include "support.h"
#include "support/compare.h"

namespace seer::cuda {
namespace {

struct Case {
  std::string name;
  std::vector<int> lengths;
  int num_heads = 8;
  int num_kv_heads = 2;
  int head_dim = 128;
  DType dtype = DType::kBF16;
  double density = 1;  // 1: dense, without a mask
  int splits = 0;
};

void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const int length : {1, 16, 63, 64, 65, 200, 4097}) {
    list.push_back({.name = "dense_" + std::to_string(length), .lengths = {length}});
    list.push_back({.name = "random_" + std::to_string(length), .lengths = {length}, .density = 0.4});
  }
  for (int group = 1; group <= 16; ++group) {
    list.push_back({.name = "group_" + std::to_string(group),
                    .lengths = {500, 77},
                    .num_heads = 3 * group,
                    .num_kv_heads = 3,
                    .density = group % 2 == 0 ? 1 : 0.5});
  }
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int dim : {64, 128}) {
      list.push_back({.name = std::string(name_of(dtype)) + "_d" + std::to_string(dim),
                      .lengths = {1000, 5000},
                      .head_dim = dim,
                      .dtype = dtype,
                      .density = 0.5});
    }
  }
  for (const int splits : {1, 2, 7, 64}) {
    list.push_back(
        {.name = "splits_" + std::to_string(splits), .lengths = {3000, 1}, .density = 0.5, .splits = splits});
  }
  list.push_back({.name = "ragged", .lengths = {0, 1, 64, 65, 10000, 0, 3000}, .density = 0.5});
  list.push_back({.name = "ragged_dense", .lengths = {0, 1, 64, 65, 10000, 0, 3000}});
  list.push_back({.name = "nothing_selected", .lengths = {100, 5000}, .density = 0});
  list.push_back({.name = "long_context",
                  .lengths = {300000},
                  .num_heads = 2,
                  .num_kv_heads = 1,
                  .head_dim = 64,
                  .density = 0.05});
  list.push_back({.name = "large_batch", .lengths = std::vector<int>(70, 333), .density = 0.5});
  return list;
}

class Decode : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

TEST_P(Decode, MatchesFloat64) {
  const Case& c = GetParam();
  const int batch = static_cast<int>(c.lengths.size());
  const int group = c.num_heads / c.num_kv_heads;
  const std::int64_t tile = kBlockSize * c.head_dim;
  const std::int64_t page = 2 * tile * c.num_kv_heads;
  std::int64_t max_blocks = 1;
  std::int64_t num_pages = 3;
  for (const int length : c.lengths) {
    max_blocks = std::max(max_blocks, blocks_for(length));
    num_pages += blocks_for(length);
  }
  const std::int64_t words = (max_blocks + 63) / 64;

  std::vector<std::int32_t> order(static_cast<std::size_t>(num_pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(3));
  std::vector<std::int32_t> table(static_cast<std::size_t>(batch * max_blocks), 0);
  std::vector<float> values(static_cast<std::size_t>(num_pages * page), std::nanf(""));
  std::size_t used = 0;
  for (int b = 0; b < batch; ++b) {
    for (std::int64_t block = 0; block < blocks_for(c.lengths[b]); ++block, ++used) {
      table[static_cast<std::size_t>(b * max_blocks + block)] = order[used];
      test::fill_normal(std::span(values).subspan(static_cast<std::size_t>(order[used] * page),
                                                  static_cast<std::size_t>(page)),
                        100 + used);
    }
  }
  const DeviceArray<std::uint16_t> kv(to_storage(values, c.dtype));
  const DeviceArray<std::int32_t> page_table(table);
  values.resize(static_cast<std::size_t>(batch * c.num_heads * c.head_dim));
  test::fill_normal(values, 1, 1.5f);
  const DeviceArray<std::uint16_t> q(to_storage(values, c.dtype));
  const DeviceArray<std::int32_t> lengths(c.lengths);

  // The mask by KV head for the kernel, by query head for the reference.
  std::vector<std::uint64_t> kernel_bits(static_cast<std::size_t>(batch * c.num_kv_heads * words), 0);
  std::vector<std::uint64_t> reference_bits(static_cast<std::size_t>(batch * c.num_heads * words), 0);
  for (int b = 0; b < batch; ++b) {
    for (int h = 0; h < c.num_heads; ++h) {
      for (std::int64_t j = 0; j < max_blocks; ++j) {
        if (static_cast<double>(hash(b + 1, h / group + 1, j + 1) % 1000) >= c.density * 1000) continue;
        const std::uint64_t bit = std::uint64_t{1} << (j % 64);
        kernel_bits[static_cast<std::size_t>((b * c.num_kv_heads + h / group) * words + j / 64)] |= bit;
        reference_bits[static_cast<std::size_t>((b * c.num_heads + h) * words + j / 64)] |= bit;
      }
    }
  }
  const DeviceArray<std::uint64_t> kernel_mask(kernel_bits);
  const DeviceArray<std::uint64_t> reference_mask(reference_bits);

  DeviceArray<std::uint16_t> out(batch * c.num_heads * c.head_dim);
  DeviceArray<float> lse(batch * c.num_heads);
  DecodeAttentionParams p;
  p.q = q.data();
  p.q_batch_stride = p.out_batch_stride = c.num_heads * c.head_dim;
  p.q_head_stride = p.out_head_stride = c.head_dim;
  p.out = out.data();
  p.lse = lse.data();
  p.kv = {.k = kv.data(),
          .v = kv.data() + tile,
          .token_stride = c.head_dim,
          .head_stride = 2 * tile,
          .page_table = page_table.data(),
          .page_table_stride = max_blocks,
          .page_stride = page,
          .num_pages = num_pages};
  p.dtype = c.dtype;
  p.batch = batch;
  p.num_heads = c.num_heads;
  p.num_kv_heads = c.num_kv_heads;
  p.head_dim = c.head_dim;
  p.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  p.seqlens_k = lengths.data();
  p.mask = c.density < 1 ? kernel_mask.data() : nullptr;
  p.mask_words = words;
  p.splits = c.splits;
  DeviceArray<std::uint8_t> workspace(static_cast<std::int64_t>(attention_decode_workspace(p)));
  workspace.fill_bytes(0);
  p.workspace = workspace.data();

  std::vector<std::uint16_t> first;
  for (int run = 0; run < 3; ++run) {  // the workspace must be ready again after each
    out.fill_bytes(0xff);
    lse.fill_bytes(0xff);
    attention_decode(p, nullptr);
    check(cudaDeviceSynchronize(), "attention_decode");
    if (run == 0) first = out.download();
    ASSERT_EQ(first, out.download());
  }

  // The reference knows sequences without a key as sequences without a query.
  std::vector<std::int32_t> cu_q = {0};
  std::vector<std::int32_t> cu_k = {0};
  std::vector<int> query_of;
  std::vector<float> queries;
  for (int b = 0; b < batch; ++b) {
    cu_q.push_back(cu_q.back() + (c.lengths[b] > 0));
    cu_k.push_back(cu_k.back() + c.lengths[b]);
    if (c.lengths[b] > 0) query_of.push_back(b);
  }
  const std::size_t row = static_cast<std::size_t>(c.num_heads * c.head_dim);
  const auto q_bits = q.download();
  std::vector<std::uint16_t> packed;
  for (const int b : query_of)
    packed.insert(packed.end(), q_bits.begin() + b * row, q_bits.begin() + (b + 1) * row);
  const DeviceArray<std::uint16_t> reference_q(packed);
  const DeviceArray<std::int32_t> cu_seqlens_q(cu_q);
  const DeviceArray<std::int32_t> cu_seqlens_k(cu_k);
  PrefillAttentionParams r;
  r.q = reference_q.data();
  r.q_token_stride = p.q_batch_stride;
  r.q_head_stride = p.q_head_stride;
  r.kv = p.kv;
  r.dtype = p.dtype;
  r.batch = batch;
  r.num_heads = p.num_heads;
  r.num_kv_heads = p.num_kv_heads;
  r.head_dim = p.head_dim;
  r.scale = p.scale;
  r.cu_seqlens_q = cu_seqlens_q.data();
  r.cu_seqlens_k = cu_seqlens_k.data();
  r.total_q = static_cast<std::int64_t>(query_of.size());
  r.max_rows = 1;
  r.mask = c.density < 1 ? reference_mask.data() : nullptr;
  r.mask_words = words;
  r.mask_heads = p.num_heads;
  const auto reference = [&](ReferenceRounding rounding) {
    DeviceArray<double> values(r.total_q * c.num_heads * c.head_dim);
    DeviceArray<double> sums(c.num_heads * r.total_q);
    attention_prefill_reference(r, 1, rounding, values.data(), sums.data(), nullptr);
    check(cudaDeviceSynchronize(), "attention_prefill_reference");
    return std::pair(values.download(), sums.download());
  };
  const auto [exact, exact_lse] = reference(ReferenceRounding::kNone);
  const auto [plain, plain_lse] = reference(ReferenceRounding::kStorage);

  const auto actual = from_storage(first, c.dtype);
  const auto actual_lse = lse.download();
  std::vector<float> compared;
  std::vector<float> compared_lse;
  std::vector<double> expected_lse;
  for (std::size_t i = 0; i < query_of.size(); ++i) {
    const std::size_t b = static_cast<std::size_t>(query_of[i]);
    compared.insert(compared.end(), actual.begin() + b * row, actual.begin() + (b + 1) * row);
    for (int h = 0; h < c.num_heads; ++h) {
      compared_lse.push_back(actual_lse[b * c.num_heads + h]);
      expected_lse.push_back(exact_lse[h * query_of.size() + i]);
    }
  }
  EXPECT_TRUE(within_twice(compared, plain, exact, static_cast<std::int64_t>(row)));
  EXPECT_TRUE(test::all_close(compared_lse, std::span<const double>(expected_lse), 1e-4, 1e-6));
  for (int b = 0; b < batch; ++b) {
    if (c.lengths[b] > 0) continue;
    for (std::size_t i = 0; i < row; ++i) ASSERT_EQ(actual[b * row + i], 0);
    for (int h = 0; h < c.num_heads; ++h) ASSERT_EQ(actual_lse[b * c.num_heads + h], -INFINITY);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Decode, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(DecodeAlone, RefusesWhatItDoesNotSupport) {
  std::string reason;
  if (!available(&reason)) GTEST_SKIP() << reason;
  DeviceArray<std::uint16_t> kv(2 * 2 * 64 * 128), q(8 * 128);
  DeviceArray<std::int32_t> table(1), lengths(1), workspace(1 << 16);
  DecodeAttentionParams valid;
  valid.q = valid.out = q.data();
  valid.q_batch_stride = valid.out_batch_stride = 8 * 128;
  valid.q_head_stride = valid.out_head_stride = 128;
  valid.kv = {.k = kv.data(),
              .v = kv.data() + 64 * 128,
              .token_stride = 128,
              .head_stride = 2 * 64 * 128,
              .page_table = table.data(),
              .page_table_stride = 1,
              .page_stride = kv.size(),
              .num_pages = 1};
  valid.num_heads = 8;
  valid.num_kv_heads = 2;
  valid.head_dim = 128;
  valid.scale = 1;
  valid.seqlens_k = lengths.data();
  valid.workspace = workspace.data();
  const auto refused = [&](auto change) {
    DecodeAttentionParams p = valid;
    change(p);
    EXPECT_THROW(attention_decode(p, nullptr), Error);
  };
  refused([](auto& p) { p.head_dim = 96; });
  refused([](auto& p) { p.dtype = DType::kF32; });
  refused([](auto& p) { p.num_heads = 3; });
  refused([](auto& p) { p.num_heads = 34; });
  refused([](auto& p) { p.scale = 0; });
  refused([](auto& p) { p.splits = 65; });
  refused([](auto& p) { p.q_head_stride = 12; });
  refused([](auto& p) { p.kv.v = nullptr; });
  refused([](auto& p) { p.kv.page_table = nullptr; });
  refused([](auto& p) { p.workspace = nullptr; });
  refused([](auto& p) { p.mask = reinterpret_cast<const std::uint64_t*>(p.q); });
}

}  // namespace
}  // namespace seer::cuda
