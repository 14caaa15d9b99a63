// Four-lane vectors of the compiler for kernel templates: what any x86-64 runs.
#pragma once

#include <cstdint>

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
  /// Eight operand words.
  static void pack(const float* x, Word* p) { __builtin_memcpy(p, x, 8 * sizeof(Word)); }
  static Operand load_operand(const Word* p) { return load(p); }
  static Operand broadcast_operand(const Word* p) { return set(*p); }
  static Float multiply_add(Operand a, Operand b, Float c) { return a * b + c; }

  static Float as_float(Int x) { return __builtin_bit_cast(Float, x); }
  static Int as_int(Float x) { return __builtin_bit_cast(Int, x); }
  static Float zero() { return Float{}; }
  static Float set(float x) { return Float{x, x, x, x}; }
  static Float load(const float* p) { return load_unaligned(p); }
  static Float load_unaligned(const float* p) {
    Float x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(float* p, Float x) { __builtin_memcpy(p, &x, sizeof x); }
  static void store_unaligned(float* p, Float x) { __builtin_memcpy(p, &x, sizeof x); }
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

  /// x in lanes 0..last and `other` after (last may be negative or past the end).
  static Float replace_after(Float x, int last, float other) {
    const Int lane = {0, 1, 2, 3};
    return lane > Int{last, last, last, last} ? set(other) : x;
  }

  /// 2^x for x <= 127, relative error below 3e-7; 2^-126 for smaller x.
  static Float exp2(Float x) {
    const Float magic = set(kRoundingMagic);
    const Float clamped = max(x, set(-126.0f));
    const Float shifted = clamped + magic;
    const Float fraction = clamped - (shifted - magic);
    Float p = set(kExp2Polynomial[5]);
    for (int i = 4; i >= 0; --i) p = p * fraction + kExp2Polynomial[i];
    return as_float(as_int(p) + (as_int(shifted) << 23));
  }

  /// The low / high bf16 of each 32-bit lane, widened.
  static Float widen_low(const std::uint32_t* p) {
    Int x;
    __builtin_memcpy(&x, p, sizeof x);
    return as_float(x << 16);
  }
  static Float widen_high(const std::uint32_t* p) {
    Int x;
    __builtin_memcpy(&x, p, sizeof x);
    return as_float(x & static_cast<std::int32_t>(0xffff0000u));
  }

  /// Writes kCount * kLanes values as operand words.
  template <int kCount>
  static void store_operands(Word* p, const Float (&x)[kCount]) {
    for (int v = 0; v < kCount; ++v) store(p + v * kLanes, x[v]);
  }
};

}  // namespace seer
