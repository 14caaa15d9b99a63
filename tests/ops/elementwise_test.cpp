#include "ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/check.h"
#include "support/compare.h"

namespace seer {
namespace {

using test::all_close;
using test::fill_normal;

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Elementwise : public ::testing::TestWithParam<CpuIsa> {
 protected:
  Context context_{2, GetParam()};
};

TEST_P(Elementwise, EmbeddingWidensRows) {
  const std::int64_t rows = 11, cols = 37;
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  fill_normal(values, 1);
  values[5] = 1e-6f;  // a subnormal half
  std::vector<BFloat16> bf16;
  std::vector<Float16> f16;
  for (const float x : values) bf16.push_back(to_bfloat16(x)), f16.push_back(to_float16(x));
  const std::vector<std::int32_t> ids = {3, 0, 10, 3};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const void* data = dtype == DType::kF32    ? static_cast<const void*>(values.data())
                       : dtype == DType::kBF16 ? static_cast<const void*>(bf16.data())
                                               : static_cast<const void*>(f16.data());
    std::vector<float> out(ids.size() * static_cast<std::size_t>(cols), kPoison);
    const MatrixView table{.dtype = dtype, .data = data, .rows = rows, .cols = cols};
    embedding(context_, table, ids.data(), static_cast<std::int64_t>(ids.size()), out.data());
    for (std::size_t t = 0; t < ids.size(); ++t) {
      for (std::size_t c = 0; c < static_cast<std::size_t>(cols); ++c) {
        const std::size_t from = static_cast<std::size_t>(ids[t] * cols) + c;
        const float expected = dtype == DType::kF32    ? values[from]
                               : dtype == DType::kBF16 ? to_float(bf16[from])
                                                       : to_float(f16[from]);
        EXPECT_EQ(out[t * static_cast<std::size_t>(cols) + c], expected);
      }
    }
    for (const std::int32_t outside : {-1, 11})
      EXPECT_THROW(embedding(context_, table, &outside, 1, out.data()), Error);
  }
}

TEST_P(Elementwise, RmsNorm) {
  for (const std::int64_t size : {1, 5, 64, 128, 385, 1030}) {
    for (const std::int64_t rows : {1, 3, 70}) {
      const std::int64_t stride = size + 2;
      std::vector<float> x(static_cast<std::size_t>(rows * stride)), weight(static_cast<std::size_t>(size));
      fill_normal(x, 2);
      fill_normal(weight, 3);
      std::vector<double> expected(x.begin(), x.end());
      for (std::int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (std::int64_t i = 0; i < size; ++i)
          sum += std::pow(static_cast<double>(x[static_cast<std::size_t>(r * stride + i)]), 2);
        for (std::int64_t i = 0; i < size; ++i)
          expected[static_cast<std::size_t>(r * stride + i)] *=
              static_cast<double>(weight[static_cast<std::size_t>(i)]) /
              std::sqrt(sum / static_cast<double>(size) + static_cast<double>(1e-5f));
      }
      rms_norm(context_, x.data(), weight.data(), 1e-5f, rows, size, stride, x.data());
      EXPECT_TRUE(all_close(x, expected, 0, 2e-6));
    }
  }
}

TEST_P(Elementwise, RopeRotatesHalves) {
  for (const int dim : {2, 16, 80, 128}) {
    for (const std::int64_t tokens : {1, 70}) {
      const int heads = 5;
      const std::int64_t x_stride = heads * dim + 7, out_stride = heads * dim, half = dim / 2;
      std::vector<float> x(static_cast<std::size_t>(tokens * x_stride));
      std::vector<float> cos(static_cast<std::size_t>(tokens * half)), sin(cos.size());
      fill_normal(x, 4);
      fill_normal(cos, 5);
      fill_normal(sin, 6);
      std::vector<float> out(static_cast<std::size_t>(tokens * out_stride), kPoison);
      std::vector<double> expected(out.size());
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t i = 0; i < half; ++i) {
            const double a = x[static_cast<std::size_t>(t * x_stride + h * dim + i)];
            const double b = x[static_cast<std::size_t>(t * x_stride + h * dim + half + i)];
            const double c = cos[static_cast<std::size_t>(t * half + i)];
            const double s = sin[static_cast<std::size_t>(t * half + i)];
            expected[static_cast<std::size_t>(t * out_stride + h * dim + i)] = a * c - b * s;
            expected[static_cast<std::size_t>(t * out_stride + h * dim + half + i)] = b * c + a * s;
          }
        }
      }
      apply_rope(context_, x.data(), cos.data(), sin.data(), tokens, heads, dim, x_stride, out.data(),
                 out_stride);
      EXPECT_TRUE(all_close(out, expected, 2e-6));
      apply_rope(context_, x.data(), cos.data(), sin.data(), tokens, heads, dim, x_stride, x.data(),
                 x_stride);
      for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t i = 0; i < out_stride; ++i)
          EXPECT_EQ(x[static_cast<std::size_t>(t * x_stride + i)],
                    out[static_cast<std::size_t>(t * out_stride + i)]);
    }
  }
}

TEST_P(Elementwise, SiluMultiply) {
  for (const std::size_t count : {1u, 15u, 1024u, 70001u}) {
    std::vector<float> gate(count), up(count);
    fill_normal(gate, 7, 8.0f);
    fill_normal(up, 8);
    gate[0] = -300.0f;
    if (count > 1) gate[1] = 300.0f, up[1] = 1.0f;
    std::vector<double> expected(count);
    for (std::size_t i = 0; i < count; ++i)
      expected[i] = static_cast<double>(gate[i]) / (1 + std::exp(-static_cast<double>(gate[i]))) *
                    static_cast<double>(up[i]);
    silu_multiply(context_, gate.data(), up.data(), static_cast<std::int64_t>(count));
    EXPECT_TRUE(all_close(gate, expected, 1e-35, 2e-6));
  }
  std::vector<float> gate = {kPoison}, up = {1.0f};
  silu_multiply(context_, gate.data(), up.data(), 1);
  EXPECT_TRUE(std::isnan(gate[0]));
}

TEST_P(Elementwise, CrossEntropy) {
  for (const std::int64_t vocab : {1, 13, 64, 4096, 50001}) {
    const std::int64_t rows = 3;
    std::vector<float> logits(static_cast<std::size_t>(rows * vocab));
    fill_normal(logits, 9, 5.0f);
    if (vocab > 13) logits[20] = -kInfinity, logits[static_cast<std::size_t>(vocab) + 3] = 80.0f;
    std::vector<std::int32_t> targets(static_cast<std::size_t>(rows), static_cast<std::int32_t>(vocab / 2));
    std::vector<double> expected;
    for (std::int64_t r = 0; r < rows; ++r) {
      double most = -1e300, sum = 0;
      for (std::int64_t i = 0; i < vocab; ++i)
        most = std::max(most, static_cast<double>(logits[static_cast<std::size_t>(r * vocab + i)]));
      for (std::int64_t i = 0; i < vocab; ++i)
        sum += std::exp(static_cast<double>(logits[static_cast<std::size_t>(r * vocab + i)]) - most);
      expected.push_back(most + std::log(sum) -
                         static_cast<double>(logits[static_cast<std::size_t>(r * vocab + vocab / 2)]));
    }
    std::vector<float> nll(static_cast<std::size_t>(rows), kPoison);
    cross_entropy(context_, logits.data(), rows, vocab, targets.data(), nll.data());
    EXPECT_TRUE(all_close(nll, expected, 1e-6, 1e-6));
    targets[1] = static_cast<std::int32_t>(vocab);
    EXPECT_THROW(cross_entropy(context_, logits.data(), rows, vocab, targets.data(), nll.data()), Error);
  }
}

TEST_P(Elementwise, CrossEntropyKeepsNan) {
  for (const std::size_t at : {0u, 40u, 99u}) {
    std::vector<float> logits(100, 1.0f);
    logits[at] = kPoison;
    const std::int32_t target = 7;
    float nll = 0;
    cross_entropy(context_, logits.data(), 1, 100, &target, &nll);
    EXPECT_TRUE(std::isnan(nll)) << at;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Elementwise, ::testing::ValuesIn(available_cpu_isas()),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace seer
