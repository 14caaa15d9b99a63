// The prefill kernels against the float64 reference. Every case runs with separate and with shared tiles;
// both must give the same bits.
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
#include "core/dtype.h"
#include "cuda/attention.h"
#include "cuda/device_array.h"
#include "cuda/reference.h"
#include "ops/block_mask.h"
#include "support.h"
#include "support/compare.h"

namespace seer::cuda {
namespace {

/// Decides whether block (head, absolute row, column) is selected.
using Selector = std::function<bool(int head, std::int64_t row, std::int64_t column)>;

Selector random_blocks(double density) {
  return [density](int h, std::int64_t r, std::int64_t c) {
    return static_cast<double>(hash(h + 1, r + 1, c + 1) % 1000) < density * 1000;
  };
}

struct Case {
  std::string name;
  std::vector<int> seqlens_q;
  std::vector<int> seqlens_k;
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 128;
  DType dtype = DType::kBF16;
  Selector selector;  // empty: dense
  bool paged = false;
  float magnitude = 1.0f;
  bool group_mask = false;  // the mask is given by KV head
};

void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  std::vector<Case> list;
  const auto add = [&](Case c) {
    if (c.seqlens_k.empty()) c.seqlens_k = c.seqlens_q;
    list.push_back(std::move(c));
  };
  for (const int s : {1, 2, 63, 64, 65, 127, 128, 129, 192, 300, 1000, 1024}) {
    add({.name = "dense_" + std::to_string(s), .seqlens_q = {s}});
    add({.name = "random_" + std::to_string(s), .seqlens_q = {s}, .selector = random_blocks(0.4)});
  }
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int dim : {64, 128}) {
      const std::string suffix = std::string("_") + std::string(name_of(dtype)) + "_d" + std::to_string(dim);
      add({.name = "dense" + suffix, .seqlens_q = {517}, .head_dim = dim, .dtype = dtype});
      add({.name = "random" + suffix,
           .seqlens_q = {1117},
           .head_dim = dim,
           .dtype = dtype,
           .selector = random_blocks(0.3)});
      add({.name = "large_values" + suffix,
           .seqlens_q = {517},
           .head_dim = dim,
           .dtype = dtype,
           .selector = random_blocks(0.5),
           .magnitude = 4.0f});
    }
  }
  for (const int group : {1, 2, 3, 4, 5, 7, 8, 16}) {
    for (const bool dense : {true, false}) {
      add({.name = "gqa_" + std::to_string(group) + (dense ? "_dense" : "_random"),
           .seqlens_q = {450},
           .num_heads = 2 * group,
           .selector = dense ? Selector{} : random_blocks(0.4)});
    }
  }
  add({.name = "full_mask", .seqlens_q = {700}, .selector = random_blocks(2)});
  add({.name = "empty_mask", .seqlens_q = {300}, .selector = random_blocks(-1)});
  add({.name = "diagonal_only", .seqlens_q = {700}, .selector = [](int, auto r, auto c) { return r == c; }});
  add({.name = "all_but_diagonal", .seqlens_q = {700}, .selector = [](int, auto r, auto c) {
         return r != c;
       }});
  add({.name = "first_block_only", .seqlens_q = {700}, .selector = [](int, auto, auto c) { return c == 0; }});
  add({.name = "empty_rows", .seqlens_q = {1500}, .selector = [](int h, auto r, auto c) {
         return (r + h) % 3 != 0 && hash(h, r, c) % 3 == 0;
       }});
  add({.name = "sink_local", .seqlens_q = {1500}, .selector = [](int, auto r, auto c) {
         return c == 0 || r - c < 3;
       }});
  add({.name = "disjoint_heads", .seqlens_q = {1500}, .selector = [](int h, auto, auto c) {
         return (c + h) % 2 == 0;
       }});
  add({.name = "one_head_of_a_pair_empty", .seqlens_q = {1500}, .selector = [](int h, auto, auto c) {
         return h % 2 == 0 && c % 2 == 0;
       }});
  add({.name = "one_dense_head", .seqlens_q = {1500}, .num_heads = 8, .selector = [](int h, auto r, auto c) {
         return h == 3 || r == c;
       }});
  add({.name = "uneven_rows", .seqlens_q = {2500}, .selector = [](int h, auto r, auto c) {
         return hash(h, r, c) % 100 < hash(h, r, 7777) % 100;
       }});
  add({.name = "disjoint_rows_mha", .seqlens_q = {1500}, .num_heads = 2, .selector = [](int, auto r, auto c) {
         return (c + r) % 2 == 0;
       }});
  add({.name = "batch", .seqlens_q = {300, 64, 1, 500}, .selector = random_blocks(0.5)});
  add({.name = "batch_with_empty", .seqlens_q = {0, 300, 0, 0, 65, 0}, .selector = random_blocks(0.5)});
  add({.name = "batch_with_empty_dense", .seqlens_q = {0, 300, 0, 0, 65, 0}});
  add({.name = "batch_mha",
       .seqlens_q = {300, 64, 129, 500},
       .num_heads = 3,
       .num_kv_heads = 3,
       .selector = random_blocks(0.5)});
  add({.name = "no_query_of_some", .seqlens_q = {0, 200}, .seqlens_k = {500, 200}});
  for (const int offset : {64, 1, 63, 100, 640}) {
    for (const bool dense : {true, false}) {
      add({.name = "offset_" + std::to_string(offset) + (dense ? "_dense" : "_random"),
           .seqlens_q = {200, 77},
           .seqlens_k = {200 + offset, 77 + 2 * offset},
           .selector = dense ? Selector{} : random_blocks(0.5)});
    }
  }
  add({.name = "offset_mha",
       .seqlens_q = {200},
       .seqlens_k = {301},
       .num_heads = 2,
       .selector = random_blocks(0.5)});
  add({.name = "one_query_of_many_keys",
       .seqlens_q = {1},
       .seqlens_k = {5000},
       .selector = random_blocks(0.5)});
  for (const bool dense : {true, false}) {
    add({.name = std::string("paged") + (dense ? "_dense" : "_random"),
         .seqlens_q = {500, 130},
         .seqlens_k = {500, 1000},
         .selector = dense ? Selector{} : random_blocks(0.5),
         .paged = true});
    add({.name = std::string("paged_f16_d64_gqa5") + (dense ? "_dense" : "_random"),
         .seqlens_q = {333},
         .num_heads = 10,
         .head_dim = 64,
         .dtype = DType::kF16,
         .selector = dense ? Selector{} : random_blocks(0.5),
         .paged = true});
  }
  for (const int group : {1, 2, 3, 4}) {
    add({.name = "group_mask_" + std::to_string(group),
         .seqlens_q = {900, 0, 130},
         .seqlens_k = {1000, 70, 130},
         .num_heads = 2 * group,
         .selector = [](int h, auto r, auto c) { return (r + h) % 4 != 0 && hash(h, r, c) % 3 == 0; },
         .group_mask = true});
  }
  // Odd groups' tiles share keys across two rows: sequences with fewer rows than the longest by an even and
  // by an odd number, first rows that are not whole.
  for (const int group : {1, 3, 5, 7}) {
    const std::string suffix = "_odd_" + std::to_string(group);
    add({.name = "batch" + suffix,
         .seqlens_q = {0, 300, 64, 1, 65, 0, 129, 500, 0},
         .num_heads = 3 * group,
         .num_kv_heads = 3});
    add({.name = "no_query_of_some" + suffix,
         .seqlens_q = {0, 200, 0},
         .seqlens_k = {500, 200, 64},
         .num_heads = 2 * group});
    for (const int offset : {1, 63, 64, 100, 640}) {
      add({.name = "offset_" + std::to_string(offset) + suffix,
           .seqlens_q = {200, 77, 1},
           .seqlens_k = {200 + offset, 77 + 2 * offset, 1 + offset},
           .num_heads = 2 * group});
    }
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      for (const int dim : {64, 128}) {
        add({.name = "paged" + suffix + "_" + std::string(name_of(dtype)) + "_d" + std::to_string(dim),
             .seqlens_q = {517, 130},
             .seqlens_k = {517, 1001},
             .num_heads = 2 * group,
             .head_dim = dim,
             .dtype = dtype,
             .paged = true});
      }
    }
  }
  // Several items a multiprocessor.
  add({.name = "many_items_odd", .seqlens_q = {1000, 900}, .num_heads = 28, .num_kv_heads = 4});
  // More than 2048 key blocks: the mask row does not fit one pass of the fetching warp.
  add({.name = "long_context_dense_odd",
       .seqlens_q = {70},
       .seqlens_k = {140000},
       .num_heads = 1,
       .num_kv_heads = 1,
       .head_dim = 64});
  add({.name = "long_context",
       .seqlens_q = {70},
       .seqlens_k = {140000},
       .num_heads = 2,
       .num_kv_heads = 1,
       .head_dim = 64,
       .selector = random_blocks(0.02)});
  add({.name = "long_context_low_blocks",
       .seqlens_q = {70},
       .seqlens_k = {140000},
       .num_heads = 2,
       .num_kv_heads = 1,
       .head_dim = 64,
       .selector = [](int h, auto, auto c) { return c < 3 + h; }});
  return list;
}

std::vector<std::int32_t> cumulative(const std::vector<int>& lengths) {
  std::vector<std::int32_t> sums(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), sums.begin() + 1);
  return sums;
}

/// A case's inputs on the device, and the parameters that point to them.
struct Problem {
  explicit Problem(const Case& c) {
    const auto cu_q = cumulative(c.seqlens_q);
    const auto cu_k = cumulative(c.seqlens_k);
    const std::int64_t total_q = cu_q.back();
    const std::int64_t total_k = cu_k.back();
    const int batch = static_cast<int>(c.seqlens_q.size());
    cu_seqlens_q = DeviceArray<std::int32_t>(cu_q);
    cu_seqlens_k = DeviceArray<std::int32_t>(cu_k);
    workspace = DeviceArray<std::int32_t>(2);
    workspace.fill_bytes(0);

    std::vector<float> values(static_cast<std::size_t>(total_q * c.num_heads * c.head_dim));
    test::fill_normal(values, 1, c.magnitude);
    q = DeviceArray<std::uint16_t>(to_storage(values, c.dtype));

    // K and V side by side in one buffer; NaN after the last token, and in pages that nobody owns.
    std::int64_t max_rows = 0;
    std::int64_t max_blocks = 0;
    std::int64_t total_blocks = 0;
    for (int b = 0; b < batch; ++b) {
      const std::int64_t offset = c.seqlens_k[b] - c.seqlens_q[b];
      if (c.seqlens_q[b] > 0) max_rows = std::max(max_rows, blocks_for(c.seqlens_k[b]) - offset / kBlockSize);
      max_blocks = std::max(max_blocks, blocks_for(c.seqlens_k[b]));
      total_blocks += blocks_for(c.seqlens_k[b]);
    }
    const std::int64_t row = c.num_kv_heads * c.head_dim;
    const float nan = std::nanf("");
    if (!c.paged) {
      values.assign(static_cast<std::size_t>((total_k + 64) * 2 * row), nan);
      test::fill_normal(std::span(values).first(static_cast<std::size_t>(total_k * 2 * row)), 2, c.magnitude);
      kv = DeviceArray<std::uint16_t>(to_storage(values, c.dtype));
      p.kv = {.k = kv.data(),
              .v = kv.data() + row,
              .token_stride = 2 * row,
              .head_stride = c.head_dim,
              .total_tokens = total_k};
    } else {
      const std::int64_t num_pages = total_blocks + 5;
      const std::int64_t page = 2 * kBlockSize * row;
      std::vector<std::int32_t> order(static_cast<std::size_t>(num_pages));
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), std::mt19937(3));
      std::vector<std::int32_t> table(static_cast<std::size_t>(batch * max_blocks), 0);
      values.assign(static_cast<std::size_t>(num_pages * page), nan);
      std::size_t used = 0;
      for (int b = 0; b < batch; ++b) {
        for (std::int64_t block = 0; block < blocks_for(c.seqlens_k[b]); ++block, ++used) {
          table[static_cast<std::size_t>(b * max_blocks + block)] = order[used];
          test::fill_normal(std::span(values).subspan(static_cast<std::size_t>(order[used] * page),
                                                      static_cast<std::size_t>(page)),
                            100 + used, c.magnitude);
        }
      }
      kv = DeviceArray<std::uint16_t>(to_storage(values, c.dtype));
      page_table = DeviceArray<std::int32_t>(table);
      p.kv = {.k = kv.data(),
              .v = kv.data() + kBlockSize * c.head_dim,
              .token_stride = c.head_dim,
              .head_stride = 2 * kBlockSize * c.head_dim,
              .page_table = page_table.data(),
              .page_table_stride = max_blocks,
              .page_stride = page,
              .num_pages = num_pages};
    }
    if (c.selector) {
      const std::int64_t words = (max_blocks + 63) / 64;
      const int mask_heads = c.group_mask ? c.num_kv_heads : c.num_heads;
      p.mask_heads = mask_heads;
      std::vector<std::uint64_t> bits(static_cast<std::size_t>(batch * mask_heads * max_rows * words), 0);
      for (int b = 0; b < batch; ++b) {
        const std::int64_t first_row = (c.seqlens_k[b] - c.seqlens_q[b]) / kBlockSize;
        for (int h = 0; h < mask_heads; ++h) {
          for (std::int64_t r = 0; r < max_rows; ++r) {
            // Bits past the diagonal are set too: the kernels must ignore them.
            for (std::int64_t j = 0; j < max_blocks; ++j) {
              if (!c.selector(h, first_row + r, j)) continue;
              bits[static_cast<std::size_t>(((b * mask_heads + h) * max_rows + r) * words + j / 64)] |=
                  std::uint64_t{1} << (j % 64);
            }
          }
        }
      }
      mask = DeviceArray<std::uint64_t>(bits);
      p.mask = mask.data();
      p.mask_words = words;
    }
    p.q = q.data();
    p.q_token_stride = c.num_heads * c.head_dim;
    p.q_head_stride = c.head_dim;
    p.out_token_stride = p.q_token_stride;
    p.out_head_stride = p.q_head_stride;
    p.dtype = c.dtype;
    p.batch = batch;
    p.num_heads = c.num_heads;
    p.num_kv_heads = c.num_kv_heads;
    p.head_dim = c.head_dim;
    p.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    p.cu_seqlens_q = cu_seqlens_q.data();
    p.cu_seqlens_k = cu_seqlens_k.data();
    p.total_q = total_q;
    p.max_rows = max_rows;
    p.workspace = workspace.data();
  }

  struct Result {
    std::vector<std::uint16_t> out;
    std::vector<float> lse;
  };

  /// Runs the kernel into poisoned outputs.
  Result run(TileSharing sharing) const {
    PrefillAttentionParams params = p;
    DeviceArray<std::uint16_t> out(p.total_q * p.num_heads * p.head_dim);
    DeviceArray<float> lse(p.num_heads * p.total_q);
    out.fill_bytes(0xff);
    lse.fill_bytes(0xff);
    params.out = out.data();
    params.lse = lse.data();
    params.sharing = sharing;
    attention_prefill(params, nullptr);
    check(cudaDeviceSynchronize(), "attention_prefill");
    return {out.download(), lse.download()};
  }

  struct Reference {
    std::vector<double> out;
    std::vector<double> lse;
  };
  Reference reference(ReferenceRounding rounding) const {
    DeviceArray<double> out(p.total_q * p.num_heads * p.head_dim);
    DeviceArray<double> lse(p.num_heads * p.total_q);
    attention_prefill_reference(p, 1, rounding, out.data(), lse.data(), nullptr);
    check(cudaDeviceSynchronize(), "attention_prefill_reference");
    return {out.download(), lse.download()};
  }

  PrefillAttentionParams p;
  DeviceArray<std::int32_t> cu_seqlens_q, cu_seqlens_k, workspace, page_table;
  DeviceArray<std::uint16_t> q, kv;
  DeviceArray<std::uint64_t> mask;
};

class Prefill : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

bool can_share(const Case& c) {
  return !c.selector || (c.group_mask && c.num_heads / c.num_kv_heads % 2 == 0);
}

TEST_P(Prefill, MatchesFloat64) {
  const Problem problem(GetParam());
  const auto separate = problem.run(TileSharing::kSeparate);
  const auto shared = problem.run(can_share(GetParam()) ? TileSharing::kShared : TileSharing::kAuto);
  EXPECT_EQ(separate.out, shared.out);
  const auto exact = problem.reference(ReferenceRounding::kNone);
  const auto plain = problem.reference(ReferenceRounding::kStorage);
  const std::int64_t block = kBlockSize * problem.p.num_heads * problem.p.head_dim;
  for (const auto* result : {&separate, &shared}) {
    EXPECT_TRUE(within_twice(from_storage(result->out, GetParam().dtype), plain.out, exact.out, block));
    EXPECT_TRUE(test::all_close(result->lse, std::span<const double>(exact.lse), 1e-4, 1e-6));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Prefill, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

class PrefillAlone : public Prefill {};

TEST_F(PrefillAlone, FullMaskGivesTheBitsOfDense) {
  for (const int group : {1, 4}) {
    Case c{.name = "", .seqlens_q = {3000}, .seqlens_k = {3000}, .num_heads = 2 * group};
    const auto dense = Problem(c).run(TileSharing::kAuto);
    c.selector = random_blocks(2);
    const auto full = Problem(c).run(TileSharing::kAuto);
    EXPECT_EQ(dense.out, full.out);
    EXPECT_EQ(dense.lse, full.lse);
  }
}

TEST_F(PrefillAlone, SameBitsEveryRun) {
  const Problem problem(
      {.name = "", .seqlens_q = {8192}, .seqlens_k = {8192}, .num_heads = 8, .selector = random_blocks(0.3)});
  // Another stream keeps the GPU busy meanwhile.
  cudaStream_t other{};
  check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  DeviceArray<std::uint8_t> noise(1 << 28);
  const auto first = problem.run(TileSharing::kSeparate);
  for (int i = 0; i < 30; ++i) {
    check(cudaMemsetAsync(noise.data(), i, noise.bytes(), other), "memset");
    const auto again = problem.run(TileSharing::kAuto);
    ASSERT_EQ(first.out, again.out) << "run " << i;
    ASSERT_EQ(first.lse, again.lse) << "run " << i;
  }
  check(cudaStreamDestroy(other), "stream");
}

TEST_F(PrefillAlone, RefusesWhatItDoesNotSupport) {
  const Problem problem({.name = "", .seqlens_q = {64}, .seqlens_k = {64}});
  const auto refused = [&](auto change) {
    PrefillAttentionParams p = problem.p;
    p.out = const_cast<void*>(p.q);
    change(p);
    EXPECT_THROW(attention_prefill(p, nullptr), Error);
  };
  refused([](auto& p) { p.head_dim = 96; });
  refused([](auto& p) { p.dtype = DType::kF32; });
  refused([](auto& p) { p.num_heads = 3; });
  refused([](auto& p) { p.scale = 0; });
  refused([](auto& p) { p.q_token_stride = 12; });
  refused([](auto& p) { p.kv.k = nullptr; });
  refused([](auto& p) { p.workspace = nullptr; });
  refused([](auto& p) {
    p.mask = reinterpret_cast<const std::uint64_t*>(p.q);
    p.mask_words = 1;
    p.mask_heads = 3;
  });
  for (const int kv_heads : {2, 4}) {  // groups of two with a mask by query head, groups of one
    refused([kv_heads](auto& p) {
      p.num_kv_heads = kv_heads;
      p.mask_heads = p.num_heads;
      p.mask = reinterpret_cast<const std::uint64_t*>(p.q);
      p.mask_words = 1;
      p.sharing = TileSharing::kShared;
    });
  }
}

}  // namespace
}  // namespace seer::cuda
