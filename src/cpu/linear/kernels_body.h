// The bodies of products with stored weights, as templates over a SIMD wrapper (cpu/simd.h) that the
// including unit extends by reads of unaligned memory: widen_bf16(p) and widen_f16(p) of kLanes values,
// widen_bf16_even(p) and widen_bf16_odd(p) of every other one of 2 * kLanes; and by split(a, b, even, odd),
// which does the same with the float32 values of two vectors.
#pragma once

#include <cstdint>

#include "cpu/linear/kernels.h"

namespace seer::cpu::linear_body {

/// How a stored type becomes lanes of float32. A step of 2 * kLanes values is read in two halves, in an order
/// of the type's own; `arrange` brings as many values of x into that order.
template <class Simd>
struct StoredF32 {
  using Float = typename Simd::Float;
  using Element = float;
  static Float load(const float* p) { return Simd::load_unaligned(p); }
  static Float load_half(const float* p, int half) { return load(p + half * Simd::kLanes); }
  static void arrange(const float* x, float* out) {
    Simd::store(out, Simd::load_unaligned(x));
    Simd::store(out + Simd::kLanes, Simd::load_unaligned(x + Simd::kLanes));
  }
};
template <class Simd>
struct StoredF16 {
  using Float = typename Simd::Float;
  using Element = std::uint16_t;
  static Float load(const std::uint16_t* p) { return Simd::widen_f16(p); }
  static Float load_half(const std::uint16_t* p, int half) { return load(p + half * Simd::kLanes); }
  static void arrange(const float* x, float* out) {
    Simd::store(out, Simd::load_unaligned(x));
    Simd::store(out + Simd::kLanes, Simd::load_unaligned(x + Simd::kLanes));
  }
};
template <class Simd>
struct StoredBf16 {
  using Float = typename Simd::Float;
  using Element = std::uint16_t;
  static Float load(const std::uint16_t* p) { return Simd::widen_bf16(p); }
  static Float load_half(const std::uint16_t* p, int half) {
    return half == 0 ? Simd::widen_bf16_even(p) : Simd::widen_bf16_odd(p);
  }
  /// Even values, then odd ones: a shift or an AND widens a vector of pairs.
  static void arrange(const float* x, float* out) {
    Float even, odd;
    Simd::split(Simd::load_unaligned(x), Simd::load_unaligned(x + Simd::kLanes), even, odd);
    Simd::store(out, even);
    Simd::store(out + Simd::kLanes, odd);
  }
};

/// Calls body.template operator()<Stored>() for the stored type of `dtype`.
template <class Simd, class Body>
inline void with_stored(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF32:
      return body.template operator()<StoredF32<Simd>>();
    case DType::kBF16:
      return body.template operator()<StoredBf16<Simd>>();
    case DType::kF16:
      return body.template operator()<StoredF16<Simd>>();
    default:
      return;
  }
}

template <class Simd>
void arrange(DType dtype, const float* x, std::int64_t x_stride, int m, std::int64_t cols, float* out) {
  constexpr int kStep = 2 * Simd::kLanes;
  with_stored<Simd>(dtype, [&]<class Stored>() {
    for (std::int64_t k = 0; k < cols; k += kStep) {
      for (int r = 0; r < m; ++r, out += kStep) {
        const float* row = x + r * x_stride + k;
        if (k + kStep <= cols) {
          Stored::arrange(row, out);
        } else {
          float padded[kStep];
          for (int i = 0; i < kStep; ++i) padded[i] = k + i < cols ? row[i] : 0;
          Stored::arrange(padded, out);
        }
      }
    }
  });
}

/// What the first-level cache can take in advance.
inline constexpr std::int64_t kPrefetchBytes = 16 << 10;

template <class Simd, class Stored>
class Gemv {
  using Float = typename Simd::Float;
  using Element = typename Stored::Element;
  static constexpr int kStep = 2 * Simd::kLanes;

 public:
  static void run(const GemvPart& part) {
    switch (part.m) {
      case 1:
        return rows<1>(part);
      case 2:
        return rows<2>(part);
      case 3:
        return rows<3>(part);
      case 4:
        return rows<4>(part);
      case 5:
        return rows<5>(part);
      case 6:
        return rows<6>(part);
      case 7:
        return rows<7>(part);
      case 8:
        return rows<8>(part);
    }
  }

 private:
  /// Rows of w at a time: enough sums to hide the latency of an addition, as many as stay in registers.
  template <int kM>
  static constexpr int rows_at_once() {
    constexpr int kSums = Simd::kLanes == 16 ? 24 : 12;
    return kSums / kM < 8 ? kSums / kM : 8;
  }

  template <int kM>
  static void rows(const GemvPart& part) {
    constexpr int kRows = rows_at_once<kM>();
    std::int64_t j = 0;
    for (; j + kRows <= part.rows; j += kRows) block<kM, kRows>(part, j);
    for (; j < part.rows; ++j) block<kM, 1>(part, j);
  }

  template <int kM, int kRows>
  static void block(const GemvPart& part, std::int64_t first) {
    const Element* w = static_cast<const Element*>(part.w) + first * part.cols;
    const float* x = part.x;
    Float sum[kM][kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kM; ++r)
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) sum[r][j] = Simd::zero();
    const auto step = [&](const Element* column, std::int64_t stride) __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half, x += Simd::kLanes) {
        Float weights[kRows];
#pragma GCC unroll 8
        for (int j = 0; j < kRows; ++j) weights[j] = Stored::load_half(column + j * stride, half);
#pragma GCC unroll 8
        for (int r = 0; r < kM; ++r) {
          const Float value = Simd::load(x + r * kStep);
#pragma GCC unroll 8
          for (int j = 0; j < kRows; ++j) sum[r][j] = Simd::fma(value, weights[j], sum[r][j]);
        }
      }
      x += kM * kStep - kStep;
    };
    // Short rows are over before the hardware's prefetch is under way: the next rows are asked for.
    const std::int64_t rows_bytes = kRows * part.cols * static_cast<std::int64_t>(sizeof(Element));
    const std::int64_t ahead = rows_bytes <= kPrefetchBytes ? kRows * part.cols : 0;
    std::int64_t k = 0;
    for (; k + kStep <= part.cols; k += kStep) {
#pragma GCC unroll 8
      for (int j = 0; j < kRows; ++j) __builtin_prefetch(w + k + j * part.cols + ahead, 0, 3);
      step(w + k, part.cols);
    }
    if (k < part.cols) {
      Element padded[kRows * kStep];
      for (int j = 0; j < kRows; ++j)
        for (std::int64_t i = 0; i < kStep; ++i)
          padded[j * kStep + i] = k + i < part.cols ? w[j * part.cols + k + i] : Element{};
      step(padded, kStep);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kM; ++r) {
      float* y = part.y + r * part.y_stride + first;
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) {
        float value = Simd::reduce_add(sum[r][j]);
        if (part.bias != nullptr) value += part.bias[first + j];
        y[j] = part.add_to_y ? y[j] + value : value;
      }
    }
  }
};

template <class Simd>
void gemv(const GemvPart& part) {
  with_stored<Simd>(part.dtype, [&]<class Stored>() { Gemv<Simd, Stored>::run(part); });
}

template <class Simd>
void widen(DType dtype, const void* source, float* destination, std::int64_t count) {
  constexpr int kLanes = Simd::kLanes;
  with_stored<Simd>(dtype, [&]<class Stored>() {
    const auto* values = static_cast<const typename Stored::Element*>(source);
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) Simd::store_unaligned(destination + i, Stored::load(values + i));
    if (i == count) return;
    typename Stored::Element padded[kLanes] = {};
    float widened[kLanes];
    for (std::int64_t j = i; j < count; ++j) padded[j - i] = values[j];
    Simd::store_unaligned(widened, Stored::load(padded));
    for (std::int64_t j = i; j < count; ++j) destination[j] = widened[j - i];
  });
}

}  // namespace seer::cpu::linear_body
