// The bodies of products with stored weights, as templates over a SIMD wrapper (cpu/simd.h) that the
// including unit extends by `widen_bf16(const std::uint16_t*)` and `widen_f16(const std::uint16_t*)`:
// kLanes values from unaligned memory.
#pragma once

#include <cstdint>

#include "cpu/linear/kernels.h"

namespace seer::cpu::linear_body {

/// How a stored type becomes lanes of float32.
struct StoredF32 {
  using Element = float;
  template <class Simd>
  static typename Simd::Float load(const float* p) {
    return Simd::load_unaligned(p);
  }
};
struct StoredBf16 {
  using Element = std::uint16_t;
  template <class Simd>
  static typename Simd::Float load(const std::uint16_t* p) {
    return Simd::widen_bf16(p);
  }
};
struct StoredF16 {
  using Element = std::uint16_t;
  template <class Simd>
  static typename Simd::Float load(const std::uint16_t* p) {
    return Simd::widen_f16(p);
  }
};

/// Bytes ahead of the rows in work that are asked for. Rows are contiguous, so this is their sequel.
inline constexpr std::int64_t kPrefetchBytes = 4096;

template <class Simd, class Stored>
class Gemv {
  using Float = typename Simd::Float;
  using Element = typename Stored::Element;
  static constexpr int kLanes = Simd::kLanes;

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
  /// Rows of w at a time: enough sums to hide the latency of an addition, few enough to stay in registers.
  template <int kM>
  static constexpr int rows_at_once() {
    constexpr int kSums = Simd::kLanes == 16 ? 16 : 8;
    return kM == 1 ? 8 : (kSums / kM > 0 ? kSums / kM : 1);
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
    Float sum[kM][kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kM; ++r)
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) sum[r][j] = Simd::zero();
    const auto step = [&](const Float(&x)[kM], const Element* column, std::int64_t stride)
        __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) {
        const Float weights = Stored::template load<Simd>(column + j * stride);
#pragma GCC unroll 8
        for (int r = 0; r < kM; ++r) sum[r][j] = Simd::fma(x[r], weights, sum[r][j]);
      }
    };
    const std::int64_t whole = part.cols / kLanes * kLanes;
    const char* ahead = reinterpret_cast<const char*>(w + kRows * part.cols) + kPrefetchBytes;
    for (std::int64_t k = 0; k < whole; k += kLanes) {
      constexpr int kStepBytes = kRows * kLanes * static_cast<int>(sizeof(Element));
#pragma GCC unroll 8
      for (int line = 0; line < kStepBytes; line += 64) __builtin_prefetch(ahead + line, 0, 2);
      ahead += kStepBytes;
      Float x[kM];
#pragma GCC unroll 8
      for (int r = 0; r < kM; ++r) x[r] = Simd::load_unaligned(part.x + r * part.x_stride + k);
      step(x, w + k, part.cols);
    }
    if (whole < part.cols) {
      // The rest, padded with zeros.
      const std::int64_t rest = part.cols - whole;
      float padded_x[kLanes];
      Element padded_w[kRows * kLanes];
      Float x[kM];
      for (int r = 0; r < kM; ++r) {
        for (std::int64_t i = 0; i < kLanes; ++i)
          padded_x[i] = i < rest ? part.x[r * part.x_stride + whole + i] : 0;
        x[r] = Simd::load_unaligned(padded_x);
      }
      for (int j = 0; j < kRows; ++j)
        for (std::int64_t i = 0; i < kLanes; ++i)
          padded_w[j * kLanes + i] = i < rest ? w[j * part.cols + whole + i] : Element{};
      step(x, padded_w, kLanes);
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
  switch (part.dtype) {
    case DType::kF32:
      return Gemv<Simd, StoredF32>::run(part);
    case DType::kBF16:
      return Gemv<Simd, StoredBf16>::run(part);
    case DType::kF16:
      return Gemv<Simd, StoredF16>::run(part);
    default:
      return;
  }
}

template <class Simd, class Stored>
void widen_from(const void* source, float* destination, std::int64_t count) {
  using Element = typename Stored::Element;
  constexpr int kLanes = Simd::kLanes;
  const Element* values = static_cast<const Element*>(source);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    Simd::store_unaligned(destination + i, Stored::template load<Simd>(values + i));
  if (i == count) return;
  Element padded[kLanes] = {};
  float widened[kLanes];
  for (std::int64_t j = i; j < count; ++j) padded[j - i] = values[j];
  Simd::store_unaligned(widened, Stored::template load<Simd>(padded));
  for (std::int64_t j = i; j < count; ++j) destination[j] = widened[j - i];
}

template <class Simd>
void widen(DType dtype, const void* source, float* destination, std::int64_t count) {
  switch (dtype) {
    case DType::kF32:
      return widen_from<Simd, StoredF32>(source, destination, count);
    case DType::kBF16:
      return widen_from<Simd, StoredBf16>(source, destination, count);
    case DType::kF16:
      return widen_from<Simd, StoredF16>(source, destination, count);
    default:
      return;
  }
}

}  // namespace seer::cpu::linear_body
