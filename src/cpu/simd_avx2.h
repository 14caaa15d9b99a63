// AVX2 + FMA lanes for kernel templates. Included by *_avx2.cpp only.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/simd.h"

namespace seer {

/// 8 float lanes. Products take float32 operands.
struct Avx2 {
  using Float = __m256;
  static constexpr int kLanes = 8;
  /// Shape of the register-blocked product: 6 x 2 accumulators, 2 operands and one broadcast of 16 registers.
  static constexpr int kRows = 6;
  static constexpr int kVectors = 2;

  using Word = float;
  using Operand = __m256;
  static constexpr int kElementsPerWord = 1;
  /// Eight operand words.
  static void pack(const float* x, Word* p) { _mm256_store_ps(p, _mm256_loadu_ps(x)); }
  static Operand load_operand(const Word* p) { return _mm256_load_ps(p); }
  static Operand broadcast_operand(const Word* p) { return _mm256_broadcast_ss(p); }
  static Float multiply_add(Operand a, Operand b, Float c) { return _mm256_fmadd_ps(a, b, c); }

  static Float zero() { return _mm256_setzero_ps(); }
  static Float set(float x) { return _mm256_set1_ps(x); }
  static Float load(const float* p) { return _mm256_load_ps(p); }
  static Float load_unaligned(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Float x) { _mm256_store_ps(p, x); }
  static void store_unaligned(float* p, Float x) { _mm256_storeu_ps(p, x); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static float reduce_add(Float x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
  static float reduce_max(Float x) {
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
  }
  static bool any_greater(Float a, Float b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
  }

  /// x in lanes 0..last and `other` after (last may be negative or past the end).
  static Float replace_after(Float x, int last, float other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i after = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(last));
    return _mm256_blendv_ps(x, _mm256_set1_ps(other), _mm256_castsi256_ps(after));
  }

  /// 2^x for x <= 127, relative error below 2e-7; 2^-126 for smaller x.
  static Float exp2(Float x) {
    x = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
    const Float magic = _mm256_set1_ps(kRoundingMagic);
    const Float shifted = _mm256_add_ps(x, magic);
    const Float fraction = _mm256_sub_ps(x, _mm256_sub_ps(shifted, magic));
    Float p = _mm256_set1_ps(kExp2Polynomial[5]);
#pragma GCC unroll 5
    for (int i = 4; i >= 0; --i) p = _mm256_fmadd_ps(p, fraction, _mm256_set1_ps(kExp2Polynomial[i]));
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  }

  /// The low / high bf16 of each 32-bit lane, widened.
  static Float widen_low(const std::uint32_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)), 16));
  }
  static Float widen_high(const std::uint32_t* p) {
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)),
                                                _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }

  /// Writes kCount * kLanes values as operand words.
  template <int kCount>
  static void store_operands(Word* p, const Float (&x)[kCount]) {
    for (int v = 0; v < kCount; ++v) store(p + v * kLanes, x[v]);
  }
};

}  // namespace seer
