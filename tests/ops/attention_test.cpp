#include "ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "cpu/attention/prefill_body.h"
#include "cpu/simd_portable.h"
#include "io/tensor_file.h"
#include "ops/attention_cases.h"
#include "ops/reference/attention.h"
#include "support/compare.h"
#include "support/errors.h"
#include "support/golden.h"

namespace seer {
namespace {

using test::all_close;
using test::AttentionCase;
using test::AttentionProblem;
using test::MaskKind;

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

std::span<const float> floats(const std::vector<float>& x) { return x; }

/// What an element may differ from float64 by, for values of order 1. Products of float32 stay near rounding;
/// products of bf16 (only with bf16 pages and instructions) round q and the probabilities to 2^-9.
double tolerance(CpuIsa isa, DType dtype, float magnitude) {
  return isa >= CpuIsa::kAvx512Bf16 && dtype == DType::kBF16 ? 0.02 * magnitude : 2e-5 * magnitude;
}

class Attention : public ::testing::TestWithParam<std::tuple<CpuIsa, DType, AttentionCase>> {};

TEST_P(Attention, PrefillAgreesWithFloat64) {
  const auto& [isa, dtype, shape] = GetParam();
  AttentionProblem problem(shape, dtype);
  kv_store(Context(2, isa), problem.kv, 0, problem.kv.length, problem.k.data(), problem.v.data());

  PrefillAttentionParams params = problem.params(shape);
  const std::int64_t size = problem.q.size();
  const std::int64_t rows = shape.num_tokens * shape.num_heads;
  std::vector<float> out(static_cast<std::size_t>(size), kPoison);
  std::vector<float> lse(static_cast<std::size_t>(rows), kPoison);
  params.out = out.data();
  params.lse = lse.data();
  attention_prefill(Context(2, isa), params);

  std::vector<double> expected(static_cast<std::size_t>(size));
  std::vector<double> expected_lse(static_cast<std::size_t>(rows));
  reference::attention_prefill(params, expected.data(), expected_lse.data(), nullptr);
  const double bound = tolerance(isa, dtype, shape.magnitude);
  EXPECT_TRUE(all_close(out, expected, bound));
  EXPECT_TRUE(all_close(lse, expected_lse, bound, 1e-6));

  std::vector<float> again(static_cast<std::size_t>(size), kPoison);
  for (int threads : {1, 3}) {
    params.out = again.data();
    attention_prefill(Context(threads, isa), params);
    EXPECT_EQ(std::memcmp(again.data(), out.data(), out.size() * sizeof(float)), 0) << threads << " threads";
  }
}

TEST_P(Attention, PooledTargetAgreesWithFloat64) {
  const auto& [isa, dtype, shape] = GetParam();
  if (shape.mask != MaskKind::kNone || shape.q_offset % kBlockSize != 0) return;
  AttentionProblem problem(shape, dtype);
  kv_store(Context(2, isa), problem.kv, 0, problem.kv.length, problem.k.data(), problem.v.data());

  PrefillAttentionParams params = problem.params(shape);
  const std::int64_t blocks = blocks_for(problem.kv.length);
  params.pooled_target_stride = blocks + 3;
  const std::int64_t size =
      shape.num_heads * (blocks - shape.q_offset / kBlockSize) * params.pooled_target_stride;
  std::vector<double> expected_out(static_cast<std::size_t>(problem.q.size()));
  std::vector<double> expected_lse(static_cast<std::size_t>(shape.num_tokens * shape.num_heads));
  std::vector<double> expected(static_cast<std::size_t>(size));
  reference::attention_prefill(params, expected_out.data(), expected_lse.data(), expected.data());

  for (const bool with_out : {false, true}) {
    std::vector<float> target(static_cast<std::size_t>(size), kPoison);
    std::vector<float> out(static_cast<std::size_t>(problem.q.size()), kPoison);
    params.pooled_target = target.data();
    params.out = with_out ? out.data() : nullptr;
    attention_prefill(Context(2, isa), params);
    EXPECT_TRUE(all_close(target, expected, tolerance(isa, dtype, shape.magnitude)));
    if (with_out) {
      EXPECT_TRUE(all_close(out, expected_out, tolerance(isa, dtype, shape.magnitude)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Attention,
                         ::testing::Combine(::testing::ValuesIn(available_cpu_isas()),
                                            ::testing::Values(DType::kF32, DType::kBF16),
                                            ::testing::ValuesIn(test::attention_cases())),
                         [](const auto& info) {
                           return std::string(name_of(std::get<0>(info.param))) + "_" +
                                  std::string(name_of(std::get<1>(info.param))) + "_" +
                                  std::get<2>(info.param).name;
                         });

TEST(AttentionPrefill, FullMaskGivesTheBitsOfDense) {
  for (const CpuIsa isa : available_cpu_isas()) {
    AttentionCase shape{"", 333, 0, 4, 2, 64, MaskKind::kFull};
    AttentionProblem problem(shape, DType::kF32);
    const Context context(2, isa);
    kv_store(context, problem.kv, 0, problem.kv.length, problem.k.data(), problem.v.data());
    PrefillAttentionParams params = problem.params(shape);
    std::vector<float> dense(static_cast<std::size_t>(problem.q.size()), kPoison);
    std::vector<float> masked(static_cast<std::size_t>(problem.q.size()), kPoison);
    params.out = masked.data();
    attention_prefill(context, params);
    params.mask = nullptr;
    params.out = dense.data();
    attention_prefill(context, params);
    EXPECT_EQ(std::memcmp(dense.data(), masked.data(), dense.size() * sizeof(float)), 0) << name_of(isa);
  }
}

TEST(AttentionPrefill, ChunksAgreeWithTheWhole) {
  for (const CpuIsa isa : available_cpu_isas()) {
    AttentionCase shape{"", 200, 0, 4, 2, 64};
    AttentionProblem problem(shape, DType::kF32);
    const Context context(2, isa);
    PrefillAttentionParams params = problem.params(shape);
    const std::int64_t row = 4 * 64;
    const std::int64_t kv_row = 2 * 64;
    std::vector<float> whole(static_cast<std::size_t>(problem.q.size()), kPoison);
    std::vector<float> chunked(static_cast<std::size_t>(problem.q.size()), kPoison);
    for (const auto& [begin, end] :
         std::vector<std::pair<int, int>>{{0, 70}, {70, 71}, {71, 128}, {128, 200}}) {
      params.kv.length = end;
      kv_store(context, params.kv, begin, end - begin, problem.k.data() + begin * kv_row,
               problem.v.data() + begin * kv_row);
      params.q = problem.q.data() + begin * row;
      params.out = chunked.data() + begin * row;
      params.num_tokens = end - begin;
      params.q_offset = begin;
      attention_prefill(context, params);
    }
    params = problem.params(shape);
    params.out = whole.data();
    attention_prefill(context, params);
    EXPECT_TRUE(all_close(chunked, floats(whole), 1e-5)) << name_of(isa);
  }
}

/// The pair products of Avx512Bf16 on four portable lanes, for CPUs without them: the body is the same
/// template.
struct PortableBf16 : Portable {
  using Word = std::uint32_t;
  using Operand = Int;
  static constexpr int kElementsPerWord = 2;
  static Word pair(const float* x) {
    return to_bfloat16(x[0]).bits | static_cast<Word>(to_bfloat16(x[1]).bits) << 16;
  }
  static void pack(const float* x, Word* p) {
    for (int i = 0; i < 8; ++i) p[i] = pair(x + 2 * i);
  }
  static Operand load_operand(const Word* p) {
    Operand x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static Operand broadcast_operand(const Word* p) {
    const auto x = static_cast<std::int32_t>(*p);
    return Operand{x, x, x, x};
  }
  static Float multiply_add(Operand a, Operand b, Float c) {
    const auto high = static_cast<std::int32_t>(0xffff0000u);
    return as_float(a << 16) * as_float(b << 16) + (as_float(a & high) * as_float(b & high) + c);
  }
  template <int kCount>
  static void store_operands(Word* p, const Float (&x)[kCount]) {
    for (int v = 0; v < kCount; ++v)
      for (int i = 0; i < kLanes; i += 2) {
        const float values[2] = {x[v][i], x[v][i + 1]};
        p[(v * kLanes + i) / 2] = pair(values);
      }
  }
};

TEST(AttentionPrefill, PairProductsAgreeWithFloat64) {
  for (const AttentionCase& shape : test::attention_cases()) {
    AttentionProblem problem(shape, DType::kBF16);
    const Context context(2);
    kv_store(context, problem.kv, 0, problem.kv.length, problem.k.data(), problem.v.data());
    PrefillAttentionParams params = problem.params(shape);
    std::vector<float> out(static_cast<std::size_t>(problem.q.size()), kPoison);
    std::vector<float> lse(static_cast<std::size_t>(shape.num_tokens * shape.num_heads), kPoison);
    params.out = out.data();
    params.lse = lse.data();
    cpu::attention_prefill(
        context, params, [](const cpu::PrefillItem& item) { cpu::prefill::Item<PortableBf16>(item).run(); });
    std::vector<double> expected(out.size());
    std::vector<double> expected_lse(lse.size());
    reference::attention_prefill(params, expected.data(), expected_lse.data(), nullptr);
    const double bound = tolerance(CpuIsa::kAvx512Bf16, DType::kBF16, shape.magnitude);
    EXPECT_TRUE(all_close(out, expected, bound)) << shape.name;
    EXPECT_TRUE(all_close(lse, expected_lse, bound)) << shape.name;
  }
}

TEST(AttentionPrefill, RefusesWhatDoesNotFit) {
  const AttentionCase shape{"", 100, 0, 4, 2, 64, MaskKind::kFull};
  AttentionProblem problem(shape, DType::kF32);
  std::vector<float> out(static_cast<std::size_t>(problem.q.size()));
  std::vector<float> target(4 * 2 * 2);
  const auto refuses = [&](const auto& change, const char* word) {
    PrefillAttentionParams params = problem.params(shape);
    params.out = out.data();
    change(params);
    EXPECT_TRUE(test::error_names([&] { attention_prefill(Context(1), params); }, {word}));
  };
  refuses([](PrefillAttentionParams& p) { p.kv.dtype = DType::kF16; }, "F16");
  refuses([](PrefillAttentionParams& p) { p.kv.head_dim = 72; }, "head_dim");
  refuses([](PrefillAttentionParams& p) { p.num_heads = 3; }, "multiple");
  refuses([](PrefillAttentionParams& p) { p.kv.length = 99; }, "99");
  refuses([](PrefillAttentionParams& p) { p.scale = 0; }, "scale");
  refuses([](PrefillAttentionParams& p) { p.num_tokens = 64; }, "mask");
  refuses([&](PrefillAttentionParams& p) { p.pooled_target = target.data(); }, "dense");
  refuses(
      [&](PrefillAttentionParams& p) {
        p.mask = nullptr;
        p.pooled_target = target.data();
        p.pooled_target_stride = 1;
      },
      "stride");
  EXPECT_THROW(kv_store(Context(1), problem.kv, 90, 11, problem.k.data(), problem.v.data()), Error);
}

}  // namespace
}  // namespace seer
