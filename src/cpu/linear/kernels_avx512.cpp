#include "cpu/linear/kernels_body.h"
#include "cpu/simd_avx512.h"

namespace seer::cpu {
namespace {

struct Lanes : Avx512 {
  static __m256i load_halves(const std::uint16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Float widen_bf16(const std::uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_halves(p)), 16));
  }
  static Float widen_bf16_even(const std::uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  static Float widen_bf16_odd(const std::uint16_t* p) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), high));
  }
  static void split(Float a, Float b, Float& even, Float& odd) {
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even = _mm512_permutex2var_ps(a, evens, b);
    odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), b);
  }
  static Float widen_f16(const std::uint16_t* p) { return _mm512_cvtph_ps(load_halves(p)); }
};

}  // namespace

const LinearKernels kLinearKernelsAvx512 = {2 * Lanes::kLanes, linear_body::arrange<Lanes>,
                                            linear_body::gemv<Lanes>, linear_body::widen<Lanes>};

}  // namespace seer::cpu
