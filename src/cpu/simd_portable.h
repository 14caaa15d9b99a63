// Four-lane vectors of the compiler for kernel templates: what any x86-64 runs.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "cpu/simd.h"

namespace seer {

/// 4 float lanes. Products take float32 operands and are rounded before the addition.
struct Portable {
  using Float = float __attribute__((vector_size(16)));
  using Int = std::int32_t __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
  /// Shape of the register-blocked product: 3 x 4 accumulators of 16 registers.
  static constexpr int kRows = 3;
  static constexpr int kVectors = 4;

  using Word = float;
  using Operand = Float;
  static constexpr int kElementsPerWord = 1;
  static Word pack(const float* x) { return *x; }
  static Operand load_operand(const Word* p) { return load(p); }
  static Operand broadcast_operand(const Word* p) { return set(*p); }
  static Float multiply_add(Operand a, Operand b, Float c) { return a * b + c; }

  static Float zero() { return Float{}; }
  static Float set(float x) { return Float{x, x, x, x}; }
  static Float load(const float* p) { return load_unaligned(p); }
  static Float load_unaligned(const float* p) {
    Float x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(float* p, Float x) { std::memcpy(p, &x, sizeof x); }
  static void store_unaligned(float* p, Float x) { std::memcpy(p, &x, sizeof x); }
  static Float add(Float a, Float b) { return a + b; }
  static Float multiply(Float a, Float b) { return a * b; }
  static Float fma(Float a, Float b, Float c) { return a * b + c; }
  static Float max(Float a, Float b) { return a > b ? a : b; }
  static float reduce_add(Float x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static float reduce_max(Float x) {
    const float low = x[0] > x[1] ? x[0] : x[1];
    const float high = x[2] > x[3] ? x[2] : x[3];
    return low > high ? low : high;
  }
  static bool any_greater(Float a, Float b) {
    const Int greater = a > b;
    return (greater[0] | greater[1] | greater[2] | greater[3]) != 0;
  }

  /// -infinity in the lanes after `last` (which may be negative or past the end).
  static Float mask_after(Float x, int last) {
    const Int lane = {0, 1, 2, 3};
    return lane > Int{last, last, last, last} ? set(-__builtin_inff()) : x;
  }

  /// 2^x for x <= 127, relative error below 3e-7; 0 for x < -126.
  static Float exp2(Float x) {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const Float kMagic = set(12582912.0f);
    const Float clamped = max(x, set(-126.0f));
    const Float shifted = clamped + kMagic;
    const Float fraction = clamped - (shifted - kMagic);
    Float p = set(kExp2Polynomial[5]);
    for (int i = 4; i >= 0; --i) p = p * fraction + kExp2Polynomial[i];
    const Int bits = std::bit_cast<Int>(p) + (std::bit_cast<Int>(shifted) << 23);
    const Int in_range = x >= set(-126.0f);
    return std::bit_cast<Float>(bits & in_range);
  }

  /// The low / high bf16 of each 32-bit lane, widened.
  static Float widen_low(const std::uint32_t* p) {
    Int x;
    std::memcpy(&x, p, sizeof x);
    return std::bit_cast<Float>(x << 16);
  }
  static Float widen_high(const std::uint32_t* p) {
    Int x;
    std::memcpy(&x, p, sizeof x);
    return std::bit_cast<Float>(x & static_cast<std::int32_t>(0xffff0000u));
  }

  /// Writes kCount * kLanes values as operand words.
  template <int kCount>
  static void store_operands(Word* p, const Float (&x)[kCount]) {
    for (int v = 0; v < kCount; ++v) store(p + v * kLanes, x[v]);
  }
};

}  // namespace seer
