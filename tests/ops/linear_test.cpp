#include "ops/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "support/compare.h"

namespace seer {
namespace {

using test::all_close;
using test::fill_normal;

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

/// A weight matrix of any stored type at an address that is aligned to its elements only.
struct StoredMatrix {
  StoredMatrix(DType dtype, std::int64_t rows, std::int64_t cols, unsigned long long seed) {
    values.resize(static_cast<std::size_t>(rows * cols));
    fill_normal(values, seed, 1 / std::sqrt(static_cast<float>(cols)));
    const std::size_t size = size_of(dtype);
    bytes.resize(values.size() * size + 64 + size);
    std::byte* data = bytes.data() + (64 - reinterpret_cast<std::uintptr_t>(bytes.data()) % 64) % 64 + size;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::kBF16) {
        const BFloat16 x = to_bfloat16(values[i]);
        values[i] = to_float(x);
        std::memcpy(data + i * size, &x, size);
      } else if (dtype == DType::kF16) {
        const Float16 x = to_float16(values[i]);
        values[i] = to_float(x);
        std::memcpy(data + i * size, &x, size);
      } else {
        std::memcpy(data + i * size, &values[i], size);
      }
    }
    view = {.dtype = dtype, .data = data, .rows = rows, .cols = cols};
  }

  std::vector<float> values;  // what is stored, widened
  std::vector<std::byte> bytes;
  MatrixView view;
};

struct LinearCase {
  std::int64_t m, rows, cols;
  bool bias, add;
};

std::vector<double> expected_product(const LinearCase& shape, const StoredMatrix& w,
                                     const std::vector<float>& x, std::int64_t x_stride,
                                     const std::vector<float>& bias, const std::vector<float>& y,
                                     std::int64_t y_stride) {
  std::vector<double> out(y.begin(), y.end());
  for (std::int64_t r = 0; r < shape.m; ++r) {
    for (std::int64_t j = 0; j < shape.rows; ++j) {
      double sum = shape.bias ? static_cast<double>(bias[static_cast<std::size_t>(j)]) : 0.0;
      for (std::int64_t k = 0; k < shape.cols; ++k)
        sum += static_cast<double>(x[static_cast<std::size_t>(r * x_stride + k)]) *
               static_cast<double>(w.values[static_cast<std::size_t>(j * shape.cols + k)]);
      double& place = out[static_cast<std::size_t>(r * y_stride + j)];
      place = shape.add ? place + sum : sum;
    }
  }
  return out;
}

class Linear : public ::testing::TestWithParam<std::tuple<CpuIsa, DType>> {};

TEST_P(Linear, AgreesWithFloat64) {
  const auto& [isa, dtype] = GetParam();
  std::vector<LinearCase> cases = {
      {1, 1, 1, false, false},    {1, 7, 15, true, false},    {1, 130, 384, false, true},
      {9, 33, 100, true, true},   {16, 20, 64, false, false}, {17, 40, 72, true, true},
      {32, 65, 129, false, true}, {33, 300, 32, true, false}, {65, 40, 129, false, true}};
  for (std::int64_t m = 1; m <= 8; ++m) cases.push_back({m, 19, 83, m % 2 == 0, m % 3 == 0});
  for (const LinearCase& shape : cases) {
    const StoredMatrix w(dtype, shape.rows, shape.cols, 7);
    const std::int64_t x_stride = shape.cols + 3, y_stride = shape.rows + 5;
    std::vector<float> x(static_cast<std::size_t>(shape.m * x_stride));
    std::vector<float> y(static_cast<std::size_t>(shape.m * y_stride));
    std::vector<float> bias(static_cast<std::size_t>(shape.rows));
    fill_normal(x, 8);
    fill_normal(y, 9);
    fill_normal(bias, 10);
    std::vector<double> expected = expected_product(shape, w, x, x_stride, bias, y, y_stride);
    if (!shape.add)
      for (std::int64_t r = 0; r < shape.m; ++r) std::fill_n(y.begin() + r * y_stride, shape.rows, kPoison);
    linear(Context(2, isa), {.x = x.data(),
                             .x_stride = x_stride,
                             .y = y.data(),
                             .y_stride = y_stride,
                             .m = shape.m,
                             .w = w.view,
                             .bias = shape.bias ? bias.data() : nullptr,
                             .add_to_y = shape.add});
    EXPECT_TRUE(all_close(y, expected, 3e-6, 3e-6))
        << "m " << shape.m << " w [" << shape.rows << ", " << shape.cols << "]";
  }
}

TEST_P(Linear, ManyProductsAtOnceAreTheSameBits) {
  const auto& [isa, dtype] = GetParam();
  for (const std::int64_t m : {1, 3, 60}) {
    const std::int64_t cols = 256;
    const StoredMatrix a(dtype, 301, cols, 1), b(dtype, 64, cols, 2), c(dtype, 5, cols, 3);
    std::vector<float> x(static_cast<std::size_t>(m * cols));
    fill_normal(x, 4);
    std::vector<std::vector<float>> alone, together;
    std::vector<LinearParams> params;
    for (const StoredMatrix* w : {&a, &b, &c}) {
      alone.emplace_back(static_cast<std::size_t>(m * w->view.rows), kPoison);
      together.push_back(alone.back());
      params.push_back({.x = x.data(), .x_stride = cols, .y_stride = w->view.rows, .m = m, .w = w->view});
    }
    for (std::size_t i = 0; i < params.size(); ++i) {
      params[i].y = alone[i].data();
      linear(Context(1, isa), params[i]);
      params[i].y = together[i].data();
    }
    for (const int threads : {2, 40}) {
      for (std::vector<float>& y : together) std::fill(y.begin(), y.end(), kPoison);
      linear_many(Context(threads, isa), params.data(), static_cast<int>(params.size()));
      for (std::size_t i = 0; i < params.size(); ++i) {
        if (m <= 8)
          EXPECT_EQ(0, std::memcmp(alone[i].data(), together[i].data(), alone[i].size() * sizeof(float)));
        else
          EXPECT_TRUE(all_close(together[i], alone[i], 1e-5));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Linear,
                         ::testing::Combine(::testing::ValuesIn(available_cpu_isas()),
                                            ::testing::Values(DType::kF32, DType::kBF16, DType::kF16)),
                         [](const auto& info) {
                           return std::string(name_of(std::get<0>(info.param))) + "_" +
                                  std::string(name_of(std::get<1>(info.param)));
                         });

TEST(LinearBf16, RoundsXOnly) {
  const std::vector<CpuIsa> isas = available_cpu_isas();
  if (isas.back() < CpuIsa::kAvx512) GTEST_SKIP() << "oneDNN has no bf16 products for this CPU";
  // Without the instructions oneDNN computes the same products by others.
  const Context context(2, CpuIsa::kAvx512Bf16);
  for (const LinearCase& shape :
       {LinearCase{70, 33, 96, true, true}, LinearCase{64, 130, 55, false, false}}) {
    const StoredMatrix w(DType::kBF16, shape.rows, shape.cols, 7);
    const std::int64_t x_stride = shape.cols + 1, y_stride = shape.rows + 2;
    std::vector<float> x(static_cast<std::size_t>(shape.m * x_stride));
    std::vector<float> y(static_cast<std::size_t>(shape.m * y_stride)),
        bias(static_cast<std::size_t>(shape.rows));
    fill_normal(x, 8);
    fill_normal(y, 9);
    fill_normal(bias, 10);
    std::vector<float> rounded = x;
    for (float& value : rounded) value = to_float(to_bfloat16(value));
    const std::vector<double> expected = expected_product(shape, w, rounded, x_stride, bias, y, y_stride);
    if (!shape.add)
      for (std::int64_t r = 0; r < shape.m; ++r) std::fill_n(y.begin() + r * y_stride, shape.rows, kPoison);
    linear(context, {.x = x.data(),
                     .x_stride = x_stride,
                     .y = y.data(),
                     .y_stride = y_stride,
                     .m = shape.m,
                     .w = w.view,
                     .bias = shape.bias ? bias.data() : nullptr,
                     .add_to_y = shape.add,
                     .allow_bf16 = true});
    EXPECT_TRUE(all_close(y, expected, 1e-5));
  }
}

TEST(LinearErrors, NameTheShape) {
  std::vector<float> x(8), y(8);
  const MatrixView w{.dtype = DType::kI8, .data = x.data(), .rows = 2, .cols = 4};
  EXPECT_THROW(
      linear(Context(1), {.x = x.data(), .x_stride = 4, .y = y.data(), .y_stride = 2, .m = 1, .w = w}),
      Error);
  const MatrixView narrow{.dtype = DType::kF32, .data = x.data(), .rows = 2, .cols = 4};
  EXPECT_THROW(
      linear(Context(1), {.x = x.data(), .x_stride = 3, .y = y.data(), .y_stride = 2, .m = 2, .w = narrow}),
      Error);
}

TEST(Sgemm, AllTranspositionsAgreeWithFloat64) {
  const std::int64_t m = 33, n = 20, k = 17;
  std::vector<float> a(static_cast<std::size_t>(m * k)), b(static_cast<std::size_t>(k * n));
  std::vector<float> start(static_cast<std::size_t>(m * n));
  fill_normal(a, 1);
  fill_normal(b, 2);
  fill_normal(start, 3);
  for (const bool trans_a : {false, true}) {
    for (const bool trans_b : {false, true}) {
      for (const float beta : {0.0f, 0.5f}) {
        std::vector<float> c = beta == 0.0f ? std::vector<float>(start.size(), kPoison) : start;
        sgemm(trans_a, trans_b, m, n, k, 2.0f, a.data(), trans_a ? m : k, b.data(), trans_b ? k : n, beta,
              c.data(), n);
        std::vector<double> expected(start.size());
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (std::int64_t l = 0; l < k; ++l)
              sum += static_cast<double>(a[static_cast<std::size_t>(trans_a ? l * m + i : i * k + l)]) *
                     static_cast<double>(b[static_cast<std::size_t>(trans_b ? j * k + l : l * n + j)]);
            const auto at = static_cast<std::size_t>(i * n + j);
            expected[at] = 2 * sum + static_cast<double>(beta) * static_cast<double>(start[at]);
          }
        }
        EXPECT_TRUE(all_close(c, expected, 1e-5));
      }
    }
  }
}

}  // namespace
}  // namespace seer
