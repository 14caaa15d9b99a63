// The products of prefill attention on AMX tiles of bf16. Included by prefill_amxbf16.cpp only.
//
// A tile register holds 16 rows of 64 bytes: 16 x 16 float32 sums, 16 x 32 bf16 of the left operand, or 16
// pairs of rows x 16 columns of the right one, which is how the pages' K and V tiles lie in memory.
#pragma once

#include "cpu/simd_avx512bf16.h"

namespace seer::cpu {

/// All eight tile registers at 16 rows of 64 bytes while it lives; of the calling thread.
class AmxTiles {
 public:
  AmxTiles() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
  }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
};

/// Softmax, packing and scaling as Avx512Bf16; products by tiles.
struct AmxBf16 : Avx512Bf16 {
  static constexpr bool kMatrixTiles = true;
  static constexpr int kRows = 1;            // the left operand lies row by row
  static constexpr std::int64_t kTile = 16;  // rows or columns of float32, words of bf16 pairs

  /// 2^x with a relative error of 8e-5, a twentieth of what rounding P to bf16 may add. A cubic on [0, 1).
  static Float exp2(Float x) {
    constexpr float kPolynomial[4] = {9.999252192e-01f, 6.958335367e-01f, 2.260671590e-01f, 7.802452332e-02f};
    const Float fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
    Float p = _mm512_set1_ps(kPolynomial[3]);
#pragma GCC unroll 3
    for (int i = 2; i >= 0; --i) p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(kPolynomial[i]));
    return _mm512_scalef_ps(p, x);  // 2^floor(x)
  }

  /// c[rows][columns] = (kAdd ? c : 0) + a[rows][num_b * depth] * b, where b is num_b matrices
  /// [depth][columns] one below the other; strides in words, depth in pairs, a multiple of 16. `rows` and
  /// `columns` are rounded up to 16 and 32: a, b and c must reach so far, and what lies in a's rows past the
  /// end only ends up there. `after_step` runs after every 16 pairs of depth.
  template <bool kAdd, class AfterStep>
  static void product(std::int64_t rows, std::int64_t columns, std::int64_t depth, const Word* a,
                      std::int64_t a_stride, const Word* const* b, int num_b, std::int64_t b_stride, float* c,
                      std::int64_t c_stride, const AfterStep& after_step) {
    const std::int64_t a_bytes = 4 * a_stride, b_bytes = 4 * b_stride, c_bytes = 4 * c_stride;
    for (std::int64_t column = 0; column < columns; column += 2 * kTile) {
      for (std::int64_t row = 0; row < rows; row += 2 * kTile) {
        const bool two_rows = row + kTile < rows;
        const Word* upper = a + row * a_stride;
        const Word* lower = upper + kTile * a_stride;
        float* sums = c + row * c_stride + column;
        float* lower_sums = sums + kTile * c_stride;
        if constexpr (kAdd) {
          _tile_loadd(0, sums, c_bytes);
          _tile_loadd(1, sums + kTile, c_bytes);
          if (two_rows) {
            _tile_loadd(2, lower_sums, c_bytes);
            _tile_loadd(3, lower_sums + kTile, c_bytes);
          }
        } else {
          _tile_zero(0);
          _tile_zero(1);
          _tile_zero(2);
          _tile_zero(3);
        }
        for (int i = 0; i < num_b; ++i) {
          const Word* right = b[i] + column;
          for (std::int64_t k = 0; k < depth; k += kTile) {
            _tile_loadd(6, right + k * b_stride, b_bytes);
            _tile_loadd(7, right + k * b_stride + kTile, b_bytes);
            _tile_loadd(4, upper + i * depth + k, a_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (two_rows) {
              _tile_loadd(5, lower + i * depth + k, a_bytes);
              _tile_dpbf16ps(2, 5, 6);
              _tile_dpbf16ps(3, 5, 7);
            }
            after_step();
          }
        }
        _tile_stored(0, sums, c_bytes);
        _tile_stored(1, sums + kTile, c_bytes);
        if (two_rows) {
          _tile_stored(2, lower_sums, c_bytes);
          _tile_stored(3, lower_sums + kTile, c_bytes);
        }
      }
    }
  }
};

}  // namespace seer::cpu
