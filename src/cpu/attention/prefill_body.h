// The body of prefill attention as a template over a SIMD wrapper (cpu/simd.h).
//
// A tile holds up to 64 queries of one head. For each key block of its mask, in rising order:
//   S = Q K^T          register-blocked, K read as stored, Q packed once per item
//   P = 2^(c S - m)    m: the row's reference maximum, moved only when a score exceeds it by 2^8
//   O = O + P V        register-blocked, V read as stored
// c = scale * log2(e). Scores live in a 64 x 64 scratch that P overwrites, row by row.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cpu/attention/prefill.h"

namespace seer::cpu {

namespace prefill {

inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kLn2 = 0.69314718055994530942f;
/// A row's reference maximum moves when a score exceeds it by more than this (log2): P stays below 2^8, far
/// from overflow, and most blocks move none.
inline constexpr float kSlack = 8.0f;

/// c[kRows][kVectors * lanes] = (kAdd ? c : 0) + a[kRows][depth] * b[depth][kVectors * lanes].
template <class Simd, int kRows, int kVectors, int kRowStride, int kDepthStride, bool kAdd>
inline void product(std::int64_t depth, const typename Simd::Word* a, const typename Simd::Word* b,
                    std::int64_t b_stride, float* c, std::int64_t c_stride) {
  // Unrolled so that the sums are registers.
  typename Simd::Float sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = kAdd ? Simd::load(c + r * c_stride + v * Simd::kLanes) : Simd::zero();
  for (std::int64_t k = 0; k < depth; ++k, a += kDepthStride, b += b_stride) {
    typename Simd::Operand column[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) column[v] = Simd::load_operand(b + v * Simd::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Simd::Operand row = Simd::broadcast_operand(a + r * kRowStride);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::multiply_add(row, column[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) Simd::store(c + r * c_stride + v * Simd::kLanes, sum[r][v]);
}

/// Packed queries times a K tile.
template <class Simd, int kRows, int kVectors>
inline void score_product(std::int64_t depth, const typename Simd::Word* q, const typename Simd::Word* k,
                          float* scores) {
  product<Simd, kRows, kVectors, 1, kRows, false>(depth, q, k, kBlockSize, scores, kBlockSize);
}

/// Probabilities (64 words a row) times a V tile, added to the output.
template <class Simd, int kRows, int kVectors>
inline void value_product(std::int64_t depth, const typename Simd::Word* p, const typename Simd::Word* v,
                          float* out, std::int64_t dim) {
  product<Simd, kRows, kVectors, kBlockSize, 1, true>(depth, p, v, dim, out, dim);
}

/// Calls body.template operator()<n>() for the n in 1..kMost that equals `count`.
template <int kMost, class Body>
inline void with_constant(int count, const Body& body) {
  if constexpr (kMost > 0) {
    if (count == kMost)
      body.template operator()<kMost>();
    else
      with_constant<kMost - 1>(count, body);
  }
}

template <class Simd>
class Item {
  using Float = typename Simd::Float;
  using Word = typename Simd::Word;
  static constexpr int kLanes = Simd::kLanes;
  static constexpr int kRows = Simd::kRows;
  static constexpr int kPanel = Simd::kVectors * kLanes;  // columns of a full register block
  static constexpr int kRowVectors = kBlockSize / kLanes;

 public:
  explicit Item(const PrefillItem& item)
      : item_(item),
        params_(*item.params),
        dim_(params_.kv.head_dim),
        scale_(params_.scale * kLog2E),
        place_(*item.place),
        scratch_(item.scratch) {}

  void run() {
    std::int64_t last_block = 0;
    for (int t = 0; t < item_.num_tiles; ++t) {
      begin_tile(t);
      if (item_.tiles[t].block_row > last_block) last_block = item_.tiles[t].block_row;
    }
    for (std::int64_t word = 0; word <= last_block / 64; ++word) {
      std::uint64_t blocks = 0;
      for (int t = 0; t < item_.num_tiles; ++t) blocks |= mask_word(t, word);
      for (; blocks != 0; blocks &= blocks - 1) {
        const int bit = __builtin_ctzll(blocks);
        load_block(word * 64 + bit);
        for (int t = 0; t < item_.num_tiles; ++t)
          if ((mask_word(t, word) >> bit & 1) != 0) step(t, word * 64 + bit);
      }
    }
    for (int t = 0; t < item_.num_tiles; ++t) finish_tile(t);
  }

 private:
  float* tile_scratch(int t) const { return scratch_ + place_.tiles + t * place_.tile_size; }

  /// Selected causal blocks of word `word` of a tile's row.
  std::uint64_t mask_word(int t, std::int64_t word) const {
    const PrefillTile& tile = item_.tiles[t];
    const std::int64_t causal = tile.block_row + 1 - word * 64;  // bits of this word that are causal
    if (causal <= 0) return 0;
    const std::uint64_t limit = causal >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << causal) - 1;
    return tile.mask == nullptr ? limit : tile.mask[word] & limit;
  }

  void begin_tile(int t) {
    const PrefillTile& tile = item_.tiles[t];
    float* scratch = tile_scratch(t);
    for (std::int64_t i = 0; i < kBlockSize * dim_; ++i) scratch[place_.out + i] = 0;
    for (std::int64_t i = 0; i < kBlockSize * PrefillScratch::kSumLanes; ++i) scratch[place_.sum + i] = 0;
    for (std::int64_t i = 0; i < kBlockSize; ++i) scratch[place_.maximum + i] = -kInfinity;
    Word* packed = reinterpret_cast<Word*>(scratch + place_.q);
    const std::int64_t words = dim_ / Simd::kElementsPerWord;
    for (int first = 0; first < tile.rows; first += kRows) {
      const int rows = tile.rows - first < kRows ? tile.rows - first : kRows;
      for (int r = 0; r < rows; ++r) {
        const float* q = params_.q + ((tile.first_token + first + r) * params_.num_heads + tile.head) * dim_;
        for (std::int64_t i = 0; i < words; ++i)
          packed[i * rows + r] = Simd::pack(q + i * Simd::kElementsPerWord);
      }
      packed += words * rows;
    }
  }

  /// Finds the block's K and V tiles, widened if the products do not take the pages' type.
  void load_block(std::int64_t block) {
    const PagedKv& kv = params_.kv;
    const std::int64_t element = kv.dtype == DType::kBF16 ? 2 : 4;
    const std::int64_t tile = kBlockSize * dim_ * element;
    const std::byte* k = kv.pool + kv.page_table[block] * kv.page_stride + 2 * item_.kv_head * tile;
    const std::byte* v = k + tile;
    if (element * Simd::kElementsPerWord == 4) {
      k_ = reinterpret_cast<const Word*>(k);
      v_ = reinterpret_cast<const Word*>(v);
      return;
    }
    float* widened = scratch_ + place_.widened;
    widen(reinterpret_cast<const std::uint32_t*>(k), dim_ / 2, kBlockSize, widened);
    widen(reinterpret_cast<const std::uint32_t*>(v), kBlockSize / 2, dim_, widened + kBlockSize * dim_);
    k_ = reinterpret_cast<const Word*>(widened);
    v_ = reinterpret_cast<const Word*>(widened + kBlockSize * dim_);
  }

  /// [pairs][size][2] bf16 to [2 * pairs][size] float32.
  static void widen(const std::uint32_t* source, std::int64_t pairs, std::int64_t size, float* out) {
    for (std::int64_t pair = 0; pair < pairs; ++pair, source += size, out += 2 * size) {
      for (std::int64_t i = 0; i < size; i += kLanes) {
        Simd::store(out + i, Simd::widen_low(source + i));
        Simd::store(out + size + i, Simd::widen_high(source + i));
      }
    }
  }

  /// One key block of one tile.
  void step(int t, std::int64_t block) {
    const PrefillTile& tile = item_.tiles[t];
    float* scratch = tile_scratch(t);
    float* scores = scratch_ + place_.scores;
    const bool diagonal = block == tile.block_row;
    // The first query's last key in this block: row r sees keys 0..first_last + r.
    const int first_last = diagonal ? static_cast<int>(tile.first_position % kBlockSize) : 64;
    const std::int64_t words = dim_ / Simd::kElementsPerWord;

    for (int column = 0; column < kBlockSize; column += kPanel) {
      const Word* q = reinterpret_cast<const Word*>(scratch + place_.q);
      for (int first = 0; first < tile.rows; first += kRows) {
        const int rows = tile.rows - first < kRows ? tile.rows - first : kRows;
        if (column <= first_last + first + rows - 1)
          with_constant<kRows>(rows, [&]<int kCount>() {
            score_product<Simd, kCount, Simd::kVectors>(words, q, k_ + column,
                                                        scores + first * kBlockSize + column);
          });
        q += words * rows;
      }
    }

    float* maxima =
        params_.pooled_target != nullptr ? scratch + place_.block_maxima + block * kBlockSize : nullptr;
    if (diagonal)
      softmax<true>(tile.rows, first_last, scratch, maxima);
    else
      softmax<false>(tile.rows, first_last, scratch, maxima);

    if (params_.out == nullptr) return;
    for (std::int64_t column = 0; column < dim_; column += kPanel) {
      const int vectors =
          dim_ - column >= kPanel ? Simd::kVectors : static_cast<int>((dim_ - column) / kLanes);
      for (int first = 0; first < tile.rows; first += kRows) {
        const int rows = tile.rows - first < kRows ? tile.rows - first : kRows;
        const int last = first_last + first + rows - 1;  // of the keys that the group's last row sees
        const std::int64_t keys = last < kBlockSize - 1 ? last + 1 : kBlockSize;
        const std::int64_t depth = (keys + Simd::kElementsPerWord - 1) / Simd::kElementsPerWord;
        const Word* p = reinterpret_cast<const Word*>(scores + first * kBlockSize);
        float* out = scratch + place_.out + first * dim_ + column;
        with_constant<kRows>(rows, [&]<int kCount>() {
          with_constant<Simd::kVectors>(vectors, [&]<int kWidth>() {
            value_product<Simd, kCount, kWidth>(depth, p, v_ + column, out, dim_);
          });
        });
      }
    }
  }

  /// Scores to probabilities in place; moves maxima, sums and outputs where a row's maximum grew.
  template <bool kDiagonal>
  void softmax(int rows, int first_last, float* scratch, float* block_maxima) {
    float* scores = scratch_ + place_.scores;
    const Float scale = Simd::set(scale_);
    for (int r = 0; r < rows; ++r, scores += kBlockSize) {
      Float x[kRowVectors];
      for (int v = 0; v < kRowVectors; ++v) {
        x[v] = Simd::multiply(Simd::load(scores + v * kLanes), scale);
        if (kDiagonal) x[v] = Simd::mask_after(x[v], first_last + r - v * kLanes);
      }
      Float most = x[0];
      for (int v = 1; v < kRowVectors; ++v) most = Simd::max(most, x[v]);
      if (block_maxima != nullptr) block_maxima[r] = Simd::reduce_max(most);
      float& maximum = scratch[place_.maximum + r];
      float* sums = scratch + place_.sum + r * PrefillScratch::kSumLanes;
      if (Simd::any_greater(most, Simd::set(maximum + kSlack))) [[unlikely]] {
        const float grown = Simd::reduce_max(most);
        const Float factor = Simd::exp2(Simd::set(maximum - grown));
        maximum = grown;
        Simd::store(sums, Simd::multiply(Simd::load(sums), factor));
        float* out = scratch + place_.out + r * dim_;
        for (std::int64_t i = 0; i < dim_; i += kLanes)
          Simd::store(out + i, Simd::multiply(Simd::load(out + i), factor));
      }
      const Float reference = Simd::set(-maximum);
      Float sum = Simd::load(sums);
      for (int v = 0; v < kRowVectors; ++v) {
        x[v] = Simd::exp2(Simd::add(x[v], reference));
        sum = Simd::add(sum, x[v]);
      }
      Simd::store(sums, sum);
      Simd::store_operands(reinterpret_cast<Word*>(scores), x);
    }
  }

  void finish_tile(int t) {
    const PrefillTile& tile = item_.tiles[t];
    float* scratch = tile_scratch(t);
    for (int r = 0; r < tile.rows; ++r) {
      const float sum = Simd::reduce_add(Simd::load(scratch + place_.sum + r * PrefillScratch::kSumLanes));
      const std::int64_t token = tile.first_token + r;
      if (params_.out != nullptr) {
        const Float inverse = Simd::set(sum > 0 ? 1 / sum : 0);
        const float* source = scratch + place_.out + r * dim_;
        float* out = params_.out + (token * params_.num_heads + tile.head) * dim_;
        for (std::int64_t i = 0; i < dim_; i += kLanes)
          Simd::store_unaligned(out + i, Simd::multiply(Simd::load(source + i), inverse));
      }
      // log2 of the sum of 2^score; -infinity for an empty row.
      float& maximum = scratch[place_.maximum + r];
      maximum = sum > 0 ? maximum + std::log2f(sum) : -kInfinity;
      if (params_.lse != nullptr) params_.lse[tile.head * params_.num_tokens + token] = maximum * kLn2;
    }
    if (params_.pooled_target != nullptr) finish_pooled_target(t);
  }

  /// T[j] = max over the rows of 2^(block maximum - log-sum), divided by the sum over j.
  void finish_pooled_target(int t) {
    const PrefillTile& tile = item_.tiles[t];
    float* scratch = tile_scratch(t);
    const float* log_sums = scratch + place_.maximum;
    float total = 0;
    for (std::int64_t block = 0; block <= tile.block_row; ++block) {
      const float* maxima = scratch + place_.block_maxima + block * kBlockSize;
      float most = -kInfinity;
      for (int r = 0; r < tile.rows; ++r) {
        const float x = maxima[r] - log_sums[r];
        if (x > most) most = x;
      }
      tile.pooled_target[block] = std::exp2f(most);
      total += tile.pooled_target[block];
    }
    for (std::int64_t block = 0; block <= tile.block_row; ++block) tile.pooled_target[block] /= total;
    for (std::int64_t block = tile.block_row + 1; block < params_.pooled_target_stride; ++block)
      tile.pooled_target[block] = 0;
  }

  const PrefillItem& item_;
  const PrefillAttentionParams& params_;
  const std::int64_t dim_;
  const float scale_;
  const PrefillScratch& place_;
  float* const scratch_;
  const Word* k_ = nullptr;
  const Word* v_ = nullptr;
};

}  // namespace prefill
}  // namespace seer::cpu
