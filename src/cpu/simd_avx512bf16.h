// AVX-512 BF16 lanes for kernel templates. Included by *_avx512bf16.cpp only.
#pragma once

#include "cpu/simd_avx512.h"

namespace seer {

/// As Avx512, but products take pairs of bf16 and add both to a float32 lane (VDPBF16PS; it flushes
/// denormals).
struct Avx512Bf16 : Avx512 {
  using Word = std::uint32_t;
  using Operand = __m512i;
  static constexpr int kElementsPerWord = 2;
  /// Eight operand words: 16 values rounded to nearest even.
  static void pack(const float* x, Word* p) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(p),
                       reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(x))));
  }
  static Operand load_operand(const Word* p) { return _mm512_load_si512(p); }
  static Operand broadcast_operand(const Word* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
  static Float multiply_add(Operand a, Operand b, Float c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }

  /// Rounds kCount * kLanes values to nearest even and writes them as pairs.
  template <int kCount>
  static void store_operands(Word* p, const Float (&x)[kCount]) {
    static_assert(kCount % 2 == 0);
    for (int v = 0; v < kCount; v += 2)
      _mm512_store_si512(p + v / 2 * kLanes, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[v + 1], x[v])));
  }
};

}  // namespace seer
