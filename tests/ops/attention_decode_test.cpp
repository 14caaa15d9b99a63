#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "ops/attention.h"
#include "ops/attention_cases.h"
#include "ops/reference/attention.h"
#include "support/compare.h"

namespace seer {
namespace {

using test::all_close;
using test::AttentionProblem;

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

struct DecodeCase {
  std::string name;
  std::vector<std::int64_t> lengths;
  int num_heads, num_kv_heads, head_dim;
  double density = -1;     // below 0: dense
  float magnitude = 1.0f;  // of q
};

std::vector<DecodeCase> decode_cases() {
  return {
      {"one_key", {1}, 2, 1, 64},
      {"ragged_batch", {65, 0, 64, 200, 1}, 4, 2, 128},
      {"one_head", {131}, 1, 1, 16},
      {"groups_of_three", {700}, 6, 2, 80},
      {"groups_of_seven", {333, 20}, 7, 1, 48},
      {"groups_of_eight", {190}, 16, 2, 96},
      {"wide_head", {300}, 4, 2, 256},
      {"long", {2600}, 8, 2, 64},
      {"items_of_more_blocks", {17000}, 1, 1, 16},
      {"peaked", {1500}, 4, 1, 64, -1, 30.0f},
      {"masked", {2000, 3, 900}, 8, 2, 128, 0.3},
      {"few_blocks", {4200}, 2, 1, 32, 0.05},
      {"no_blocks", {500, 64}, 4, 2, 64, 0.0},
  };
}

/// A case's sequences with random queries and masks.
struct Problem {
  Problem(const DecodeCase& shape, DType dtype, CpuIsa isa)
      : q(shape.lengths.size() * static_cast<std::size_t>(shape.num_heads * shape.head_dim)),
        out(q.size(), kPoison) {
    test::fill_normal(q, 11, shape.magnitude);
    for (const std::int64_t length : shape.lengths) {
      params.mask_words = std::max(params.mask_words, (blocks_for(length) + 63) / 64);
      const test::AttentionCase prefill{"", length, 0, shape.num_heads, shape.num_kv_heads, shape.head_dim};
      sequences.push_back(std::make_unique<AttentionProblem>(prefill, dtype));
      AttentionProblem& sequence = *sequences.back();
      kv_store(Context(1, isa), sequence.kv, 0, length, sequence.k.data(), sequence.v.data());
      views.push_back(sequence.kv);
    }
    params.q = q.data();
    params.out = out.data();
    params.num_heads = shape.num_heads;
    params.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
    params.kv = views;
    if (shape.density < 0) return;
    // Bits past a sequence's end are set and must be ignored.
    mask.assign(shape.lengths.size() * static_cast<std::size_t>(shape.num_kv_heads * params.mask_words), 0);
    std::mt19937 random(12);
    std::uniform_real_distribution<double> uniform(0, 1);
    for (std::size_t row = 0; row < mask.size() / static_cast<std::size_t>(params.mask_words); ++row)
      for (std::int64_t bit = 0; bit < params.mask_words * 64; ++bit)
        if (uniform(random) < shape.density ||
            bit >= blocks_for(shape.lengths[row / static_cast<std::size_t>(shape.num_kv_heads)]))
          mask[row * static_cast<std::size_t>(params.mask_words) + static_cast<std::size_t>(bit / 64)] |=
              std::uint64_t{1} << (bit % 64);
    params.mask = mask.data();
  }

  std::vector<float> q, out;
  std::vector<std::unique_ptr<AttentionProblem>> sequences;
  std::vector<PagedKv> views;
  std::vector<std::uint64_t> mask;
  DecodeAttentionParams params;
};

class AttentionDecode : public ::testing::TestWithParam<std::tuple<CpuIsa, DType, DecodeCase>> {};

TEST_P(AttentionDecode, AgreesWithFloat64) {
  const auto& [isa, dtype, shape] = GetParam();
  Problem problem(shape, dtype, isa);
  attention_decode(Context(2, isa), problem.params);
  std::vector<double> expected(problem.out.size());
  reference::attention_decode(problem.params, expected.data());
  EXPECT_TRUE(all_close(problem.out, expected, 1e-5 * static_cast<double>(shape.magnitude)));

  const std::vector<float> first = problem.out;
  for (const int threads : {1, 3}) {
    std::fill(problem.out.begin(), problem.out.end(), kPoison);
    attention_decode(Context(threads, isa), problem.params);
    EXPECT_EQ(0, std::memcmp(first.data(), problem.out.data(), first.size() * sizeof(float)))
        << "other bits with " << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionDecode,
                         ::testing::Combine(::testing::ValuesIn(available_cpu_isas()),
                                            ::testing::Values(DType::kF32, DType::kBF16),
                                            ::testing::ValuesIn(decode_cases())),
                         [](const auto& info) {
                           return std::string(name_of(std::get<0>(info.param))) + "_" +
                                  std::string(name_of(std::get<1>(info.param))) + "_" +
                                  std::get<2>(info.param).name;
                         });

TEST(AttentionDecodeErrors, NameWhatDoesNotFit) {
  Problem problem({"", {70, 70}, 4, 2, 32}, DType::kF32, CpuIsa::kPortable);
  const Context context(1, CpuIsa::kPortable);
  DecodeAttentionParams params = problem.params;
  params.num_heads = 3;
  EXPECT_THROW(attention_decode(context, params), Error);
  params = problem.params;
  params.mask = reinterpret_cast<const std::uint64_t*>(problem.q.data());
  params.mask_words = 0;
  EXPECT_THROW(attention_decode(context, params), Error);
  problem.views[1].head_dim = 48;
  EXPECT_THROW(attention_decode(context, problem.params), Error);
}

}  // namespace
}  // namespace seer
