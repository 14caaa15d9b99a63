// The gate's kernels over a lane type. Included by the kernels_<isa>.cpp files only.
#pragma once

#include "cpu/gate/kernels.h"

namespace seer::cpu {

/// kCount vectors of channels; lanes from `x` on.
template <class Simd, int kCount>
void pool_channels(const float* x, std::int64_t tokens, std::int64_t stride, float* max, float* min,
                   float* avg) {
  using Float = typename Simd::Float;
  Float most[kCount], negated_least[kCount], sum[kCount];
  const Float minus_one = Simd::set(-1.0f);
  for (int v = 0; v < kCount; ++v) {
    most[v] = sum[v] = Simd::load_unaligned(x + v * Simd::kLanes);
    negated_least[v] = Simd::multiply(most[v], minus_one);
  }
  for (std::int64_t t = 1; t < tokens; ++t) {
    for (int v = 0; v < kCount; ++v) {
      const Float value = Simd::load_unaligned(x + t * stride + v * Simd::kLanes);
      most[v] = Simd::max(most[v], value);
      negated_least[v] = Simd::max(negated_least[v], Simd::multiply(value, minus_one));
      sum[v] = Simd::add(sum[v], value);
    }
  }
  const Float share = Simd::set(1.0f / static_cast<float>(tokens));
  for (int v = 0; v < kCount; ++v) {
    if (max != nullptr) Simd::store_unaligned(max + v * Simd::kLanes, most[v]);
    if (min != nullptr)
      Simd::store_unaligned(min + v * Simd::kLanes, Simd::multiply(negated_least[v], minus_one));
    if (avg != nullptr) Simd::store_unaligned(avg + v * Simd::kLanes, Simd::multiply(sum[v], share));
  }
}

inline void pool_channel(const float* x, std::int64_t tokens, std::int64_t stride, float* max, float* min,
                         float* avg) {
  float most = *x, least = *x, sum = *x;
  for (std::int64_t t = 1; t < tokens; ++t) {
    const float value = x[t * stride];
    most = value > most ? value : most;
    least = value < least ? value : least;
    sum += value;
  }
  if (max != nullptr) *max = most;
  if (min != nullptr) *min = least;
  if (avg != nullptr) *avg = sum * (1.0f / static_cast<float>(tokens));
}

template <class Simd>
void pool(const float* x, std::int64_t tokens, std::int64_t stride, std::int64_t dim, float* max, float* min,
          float* avg) {
  constexpr int kWide = 4;
  const auto at = [](float* out, std::int64_t c) { return out == nullptr ? nullptr : out + c; };
  std::int64_t c = 0;
  for (; c + kWide * Simd::kLanes <= dim; c += kWide * Simd::kLanes)
    pool_channels<Simd, kWide>(x + c, tokens, stride, at(max, c), at(min, c), at(avg, c));
  for (; c + Simd::kLanes <= dim; c += Simd::kLanes)
    pool_channels<Simd, 1>(x + c, tokens, stride, at(max, c), at(min, c), at(avg, c));
  for (; c < dim; ++c) pool_channel(x + c, tokens, stride, at(max, c), at(min, c), at(avg, c));
}

/// kRows rows by kCount vectors of columns in registers.
template <class Simd, int kRows, int kCount>
void multiply_tile(const float* x, std::int64_t x_stride, std::int64_t inner, const float* w,
                   std::int64_t w_stride, float scale, float* out, std::int64_t out_stride) {
  using Float = typename Simd::Float;
  Float sum[kRows][kCount];
  for (auto& row : sum)
    for (auto& value : row) value = Simd::zero();
  for (std::int64_t k = 0; k < inner; ++k) {
    Float column[kCount];
    for (int v = 0; v < kCount; ++v) column[v] = Simd::load_unaligned(w + k * w_stride + v * Simd::kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Float value = Simd::set(x[r * x_stride + k]);
      for (int v = 0; v < kCount; ++v) sum[r][v] = Simd::fma(value, column[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kCount; ++v)
      Simd::store_unaligned(out + r * out_stride + v * Simd::kLanes,
                            Simd::multiply(sum[r][v], Simd::set(scale)));
}

template <class Simd, int kCount>
void multiply_columns(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t inner,
                      const float* w, std::int64_t w_stride, float scale, float* out,
                      std::int64_t out_stride) {
  std::int64_t r = 0;
  for (; r + Simd::kRows <= rows; r += Simd::kRows)
    multiply_tile<Simd, Simd::kRows, kCount>(x + r * x_stride, x_stride, inner, w, w_stride, scale,
                                             out + r * out_stride, out_stride);
  for (; r < rows; ++r)
    multiply_tile<Simd, 1, kCount>(x + r * x_stride, x_stride, inner, w, w_stride, scale,
                                   out + r * out_stride, out_stride);
}

template <class Simd>
void multiply(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t inner, const float* w,
              std::int64_t w_stride, std::int64_t cols, float scale, float* out, std::int64_t out_stride) {
  constexpr int kWide = Simd::kVectors * Simd::kLanes;
  std::int64_t c = 0;
  for (; c + kWide <= cols; c += kWide)
    multiply_columns<Simd, Simd::kVectors>(x, x_stride, rows, inner, w + c, w_stride, scale, out + c,
                                           out_stride);
  for (; c + Simd::kLanes <= cols; c += Simd::kLanes)
    multiply_columns<Simd, 1>(x, x_stride, rows, inner, w + c, w_stride, scale, out + c, out_stride);
  for (; c < cols; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) {
      float sum = 0;
      for (std::int64_t k = 0; k < inner; ++k) sum += x[r * x_stride + k] * w[k * w_stride + c];
      out[r * out_stride + c] = sum * scale;
    }
  }
}

template <class Simd>
constexpr GateKernels make_gate_kernels() {
  return {.pool = &pool<Simd>, .multiply = &multiply<Simd>};
}

}  // namespace seer::cpu
