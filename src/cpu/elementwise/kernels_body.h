// The bodies of the small ops as templates over a SIMD wrapper (cpu/simd.h).
#pragma once

#include <math.h>

#include <cstdint>

#include "cpu/elementwise/kernels.h"

namespace seer::cpu::elementwise_body {

inline constexpr float kLog2E = 1.44269504088896340736f;
/// Vectors in flight: sums that do not wait for each other.
inline constexpr int kUnroll = 4;

template <class Simd>
void rms_norm(const float* x, const float* weight, float eps, std::int64_t size, float* out) {
  using Float = typename Simd::Float;
  constexpr std::int64_t kLanes = Simd::kLanes;
  Float sums[kUnroll] = {Simd::zero(), Simd::zero(), Simd::zero(), Simd::zero()};
  std::int64_t i = 0;
  for (; i + kUnroll * kLanes <= size; i += kUnroll * kLanes)
#pragma GCC unroll 4
    for (int v = 0; v < kUnroll; ++v) {
      const Float value = Simd::load_unaligned(x + i + v * kLanes);
      sums[v] = Simd::fma(value, value, sums[v]);
    }
  float sum = Simd::reduce_add(Simd::add(Simd::add(sums[0], sums[1]), Simd::add(sums[2], sums[3])));
  for (; i < size; ++i) sum += x[i] * x[i];
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(size) + eps);
  const Float factors = Simd::set(factor);
  for (i = 0; i + kLanes <= size; i += kLanes)
    Simd::store_unaligned(out + i, Simd::multiply(Simd::multiply(Simd::load_unaligned(x + i), factors),
                                                  Simd::load_unaligned(weight + i)));
  for (; i < size; ++i) out[i] = x[i] * factor * weight[i];
}

template <class Simd>
void rope(const float* x, const float* cos, const float* sin, std::int64_t heads, std::int64_t dim,
          float* out) {
  using Float = typename Simd::Float;
  constexpr std::int64_t kLanes = Simd::kLanes;
  const std::int64_t half = dim / 2;
  for (std::int64_t h = 0; h < heads; ++h, x += dim, out += dim) {
    std::int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const Float first = Simd::load_unaligned(x + i), second = Simd::load_unaligned(x + half + i);
      const Float c = Simd::load_unaligned(cos + i), s = Simd::load_unaligned(sin + i);
      Simd::store_unaligned(out + i, first * c - second * s);
      Simd::store_unaligned(out + half + i, second * c + first * s);
    }
    for (; i < half; ++i) {
      const float first = x[i], second = x[half + i];
      out[i] = first * cos[i] - second * sin[i];
      out[half + i] = second * cos[i] + first * sin[i];
    }
  }
}

/// g / (1 + 2^(-g log2 e)) * u. The exponent is capped at 126, where the result is below 1e-36.
template <class Simd>
typename Simd::Float silu_times(typename Simd::Float g, typename Simd::Float u) {
  const auto capped = Simd::max(Simd::set(-126.0f), Simd::multiply(g, Simd::set(kLog2E)));
  return g / (Simd::set(1.0f) + Simd::exp2(-capped)) * u;
}

template <class Simd>
void silu_multiply(float* gate, const float* up, std::int64_t count) {
  constexpr std::int64_t kLanes = Simd::kLanes;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    Simd::store_unaligned(gate + i,
                          silu_times<Simd>(Simd::load_unaligned(gate + i), Simd::load_unaligned(up + i)));
  if (i == count) return;
  float g[kLanes] = {}, u[kLanes] = {};
  for (std::int64_t j = i; j < count; ++j) g[j - i] = gate[j], u[j - i] = up[j];
  Simd::store_unaligned(g, silu_times<Simd>(Simd::load_unaligned(g), Simd::load_unaligned(u)));
  for (std::int64_t j = i; j < count; ++j) gate[j] = g[j - i];
}

template <class Simd>
double log_sum_exp(const float* x, std::int64_t count) {
  using Float = typename Simd::Float;
  constexpr std::int64_t kLanes = Simd::kLanes;
  constexpr std::int64_t kChunk = 1024;
  float maximum = x[0];
  std::int64_t i = 0;
  if (count >= kLanes) {
    Float most = Simd::load_unaligned(x);
    for (; i + kLanes <= count; i += kLanes) most = Simd::max(most, Simd::load_unaligned(x + i));
    maximum = Simd::reduce_max(most);
  }
  for (; i < count; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  if (maximum == -__builtin_inff()) return -__builtin_inf();

  const Float lowest = Simd::set(-126.0f), scale = Simd::set(kLog2E), most = Simd::set(maximum);
  const auto exponential = [&](Float value) __attribute__((always_inline)) {
    // A NaN is max's second operand, so its result; the difference keeps it where exp2 would not.
    const Float power = Simd::max(lowest, (value - most) * scale);
    return Simd::exp2(power) + (power - power);
  };
  double total = 0;
  for (i = 0; i + kLanes <= count;) {
    Float sum = Simd::zero();
    for (const std::int64_t end = i + kChunk < count ? i + kChunk : count; i + kLanes <= end; i += kLanes)
      sum = Simd::add(sum, exponential(Simd::load_unaligned(x + i)));
    total += static_cast<double>(Simd::reduce_add(sum));
  }
  if (i < count) {
    float rest[kLanes];
    for (std::int64_t j = 0; j < kLanes; ++j) rest[j] = i + j < count ? x[i + j] : maximum;
    Simd::store_unaligned(rest, exponential(Simd::load_unaligned(rest)));
    for (std::int64_t j = 0; i + j < count; ++j) total += static_cast<double>(rest[j]);
  }
  return static_cast<double>(maximum) + ::log(total);
}

}  // namespace seer::cpu::elementwise_body
