// AVX-512 lanes for kernel templates. Included by *_avx512.cpp and *_avx512bf16.cpp only.
#pragma once

// GCC 12 takes the undefined operands inside its own header for uninitialised variables (PR 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "cpu/simd.h"

namespace seer {

/// 16 float lanes. Products take float32 operands.
struct Avx512 {
  using Float = __m512;
  static constexpr int kLanes = 16;
  /// Shape of the register-blocked product: 6 x 4 accumulators, 4 operands and one broadcast of 32 registers.
  static constexpr int kRows = 6;
  static constexpr int kVectors = 4;

  using Word = float;
  using Operand = __m512;
  static constexpr int kElementsPerWord = 1;
  /// Eight operand words.
  static void pack(const float* x, Word* p) { _mm256_store_ps(p, _mm256_loadu_ps(x)); }
  static Operand load_operand(const Word* p) { return _mm512_load_ps(p); }
  static Operand broadcast_operand(const Word* p) { return _mm512_set1_ps(*p); }
  static Float multiply_add(Operand a, Operand b, Float c) { return _mm512_fmadd_ps(a, b, c); }

  static Float zero() { return _mm512_setzero_ps(); }
  static Float set(float x) { return _mm512_set1_ps(x); }
  static Float load(const float* p) { return _mm512_load_ps(p); }
  static Float load_unaligned(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float x) { _mm512_store_ps(p, x); }
  static void store_unaligned(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static float reduce_add(Float x) { return _mm512_reduce_add_ps(x); }
  static float reduce_max(Float x) { return _mm512_reduce_max_ps(x); }
  static bool any_greater(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }

  /// x in lanes 0..last and `other` after (last may be negative or past the end).
  static Float replace_after(Float x, int last, float other) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 after = _mm512_cmpgt_epi32_mask(lane, _mm512_set1_epi32(last));
    return _mm512_mask_mov_ps(x, after, _mm512_set1_ps(other));
  }

  /// 2^x for finite x <= 127, relative error below 2e-7.
  static Float exp2(Float x) {
    const Float whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Float fraction = _mm512_sub_ps(x, whole);
    Float p = _mm512_set1_ps(kExp2Polynomial[5]);
#pragma GCC unroll 5
    for (int i = 4; i >= 0; --i) p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(kExp2Polynomial[i]));
    return _mm512_scalef_ps(p, whole);
  }

  /// The low / high bf16 of each 32-bit lane, widened.
  static Float widen_low(const std::uint32_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(p), 16));
  }
  static Float widen_high(const std::uint32_t* p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_load_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }

  /// Writes kVectors * kLanes values as operand words.
  template <int kCount>
  static void store_operands(Word* p, const Float (&x)[kCount]) {
    for (int v = 0; v < kCount; ++v) store(p + v * kLanes, x[v]);
  }
};

}  // namespace seer
