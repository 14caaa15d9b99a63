#include "cpu/linear/kernels_body.h"
#include "cpu/simd_avx2.h"

namespace seer::cpu {
namespace {

struct Lanes : Avx2 {
  static __m128i load_halves(const std::uint16_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static Float widen_bf16(const std::uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_halves(p)), 16));
  }
  static __m256i load_pairs(const std::uint16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Float widen_bf16_even(const std::uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(load_pairs(p), 16));
  }
  static Float widen_bf16_odd(const std::uint16_t* p) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_castsi256_ps(_mm256_and_si256(load_pairs(p), high));
  }
  static void split(Float a, Float b, Float& even, Float& odd) {
    // Within 128-bit halves first, then their 64-bit parts in order.
    const auto in_order = [](Float x) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0b11011000));
    };
    even = in_order(_mm256_shuffle_ps(a, b, 0b10001000));
    odd = in_order(_mm256_shuffle_ps(a, b, 0b11011101));
  }
  static Float widen_f16(const std::uint16_t* p) { return _mm256_cvtph_ps(load_halves(p)); }
};

}  // namespace

const LinearKernels kLinearKernelsAvx2 = {2 * Lanes::kLanes, linear_body::arrange<Lanes>,
                                          linear_body::gemv<Lanes>, linear_body::widen<Lanes>};

}  // namespace seer::cpu
