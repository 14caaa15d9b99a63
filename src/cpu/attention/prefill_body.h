// The body of prefill attention as a template over a SIMD wrapper (cpu/simd.h).
//
// A tile holds up to 64 queries of one head. For each key block of its mask, in rising order:
//   S = Q K^T          register-blocked or by matrix tiles, K read as stored, Q packed once per item
//   P = 2^(c S - m)    m: the row's reference maximum, moved only when a score exceeds it by 2^8
//   O = O + P V        likewise, V read as stored
// c = scale * log2(e). Scores live in a scratch of 64 rows that P overwrites, row by row. Matrix tiles are so
// fast that moving O through the caches would take most of the time: there a tile takes its blocks two at a
// time, in the order of its own list, so that its result does not depend on the tiles beside it.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>

#include "cpu/attention/prefill.h"

namespace seer::cpu::prefill {

inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kLn2 = 0.69314718055994530942f;
/// A row's reference maximum moves when a score exceeds it by more than this (log2): P stays below 2^8, far
/// from overflow, and most blocks move none.
inline constexpr float kSlack = 8.0f;

/// Words of a row of the left operand that lie together.
inline constexpr int kChunk = 8;

/// Lines that will be needed soon, asked for a few at a time: a burst of requests would occupy the buffers
/// that the products' own misses need.
template <class Simd>  // one copy per instruction set
struct Prefetch {
  const std::byte* next = nullptr;
  const std::byte* end = nullptr;
  int lines = 0;  // at a time

  void some() {
    for (int i = 0; i < lines && next < end; ++i, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

/// c[kRows][kVectors * lanes] = (kAdd ? c : 0) + a[kRows][depth] * b[depth][kVectors * lanes]. Word k of row
/// r of a is a[k / kChunk * kChunkStride + r * kRowStride + k % kChunk].
template <class Simd, int kRows, int kVectors, int kRowStride, int kChunkStride, bool kAdd>
inline void product(std::int64_t depth, const typename Simd::Word* a, const typename Simd::Word* b,
                    std::int64_t b_stride, float* c, std::int64_t c_stride, Prefetch<Simd>& prefetch) {
  // Unrolled so that the sums are registers.
  typename Simd::Float sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::zero();
  const auto step = [&](const typename Simd::Word* column_of_a) __attribute__((always_inline)) {
    typename Simd::Operand row_of_b[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) row_of_b[v] = Simd::load_operand(b + v * Simd::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Simd::Operand x = Simd::broadcast_operand(column_of_a + r * kRowStride);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Simd::multiply_add(x, row_of_b[v], sum[r][v]);
    }
    b += b_stride;
  };
  for (; depth >= kChunk; depth -= kChunk, a += kChunkStride) {
#pragma GCC unroll 8
    for (int k = 0; k < kChunk; ++k) step(a + k);
    prefetch.some();
  }
  for (; depth > 0; --depth, ++a) step(a);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      Simd::store(c + r * c_stride + v * Simd::kLanes,
                  kAdd ? Simd::add(Simd::load(c + r * c_stride + v * Simd::kLanes), sum[r][v]) : sum[r][v]);
}

/// Packed queries times a K tile.
template <class Simd, int kRows, int kVectors>
inline void score_product(std::int64_t depth, const typename Simd::Word* q, const typename Simd::Word* k,
                          float* scores, Prefetch<Simd>& prefetch) {
  product<Simd, kRows, kVectors, kChunk, Simd::kRows * kChunk, false>(depth, q, k, kBlockSize, scores,
                                                                      kBlockSize, prefetch);
}

/// Probabilities (64 words a row) times a V tile, added to the output.
template <class Simd, int kRows, int kVectors>
inline void value_product(std::int64_t depth, const typename Simd::Word* p, const typename Simd::Word* v,
                          float* out, std::int64_t dim, Prefetch<Simd>& prefetch) {
  product<Simd, kRows, kVectors, kBlockSize, kChunk, true>(depth, p, v, dim, out, dim, prefetch);
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

/// The work on one PrefillItem.
template <class Simd>
class Item {
  using Float = typename Simd::Float;
  using Word = typename Simd::Word;
  static constexpr int kLanes = Simd::kLanes;
  static constexpr int kRows = Simd::kRows;
  static constexpr int kPanel = Simd::kVectors * kLanes;  // columns of a full register block
  static constexpr int kRowVectors = kBlockSize / kLanes;
  static constexpr int kRowsAhead = 8;  // queries asked for before they are packed
  static constexpr bool kMatrixTiles = requires { Simd::kMatrixTiles; };
  // What a product computes between two prefetches: rows and columns of sums, words of depth.
  static constexpr int kStepRows = kMatrixTiles ? 32 : kRows;
  static constexpr int kStepColumns = kMatrixTiles ? 32 : kPanel;
  static constexpr int kStepDepth = kMatrixTiles ? 16 : kChunk;
  static constexpr int kMostBlocks = kMatrixTiles ? 2 : 1;           // that a tile takes at a time
  static constexpr std::int64_t kScores = kMostBlocks * kBlockSize;  // of a row

 public:
  explicit Item(const PrefillItem& item)
      : item_(item),
        params_(*item.params),
        dim_(params_.kv.head_dim),
        scale_(params_.scale * kLog2E),
        place_(*item.place),
        scratch_(item.scratch) {}

  void run() {
    for (int t = 0; t < item_.num_tiles; ++t) begin_tile(t);
    std::int64_t next = next_block(0);
    while (next >= 0) {
      const std::int64_t block = next;
      next = next_block(block + 1);
      if constexpr (!kMatrixTiles) load_block(block);
      int users = 0;
      for (int t = 0; t < item_.num_tiles; ++t) users += selects(t, block);
      plan_prefetch(next, users);
      for (int t = 0; t < item_.num_tiles; ++t)
        if (selects(t, block)) take(t, block);
    }
    for (int t = 0; t < item_.num_tiles; ++t) {
      if (waiting_[t] >= 0) step<1>(t, &waiting_[t]);
      finish_tile(t);
    }
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

  /// The first block from `block` on that a tile selects, or -1.
  std::int64_t next_block(std::int64_t block) const {
    std::int64_t last = 0;
    for (int t = 0; t < item_.num_tiles; ++t)
      if (item_.tiles[t].block_row > last) last = item_.tiles[t].block_row;
    std::uint64_t from = ~std::uint64_t{0} << (block % 64);
    for (std::int64_t word = block / 64; word <= last / 64; ++word, from = ~std::uint64_t{0}) {
      std::uint64_t blocks = 0;
      for (int t = 0; t < item_.num_tiles; ++t) blocks |= mask_word(t, word);
      blocks &= from;
      if (blocks != 0) return word * 64 + __builtin_ctzll(blocks);
    }
    return -1;
  }

  std::int64_t tile_bytes() const { return kBlockSize * dim_ * (params_.kv.dtype == DType::kBF16 ? 2 : 4); }
  /// A block's K tile, which its V tile follows.
  const std::byte* tile_of(std::int64_t block) const {
    const PagedKv& kv = params_.kv;
    return kv.pool + kv.page_table[block] * kv.page_stride + 2 * item_.kv_head * tile_bytes();
  }

  /// Of a query or key.
  std::int64_t words() const { return dim_ / Simd::kElementsPerWord; }

  bool selects(int t, std::int64_t block) const {
    return (mask_word(t, block / 64) >> (block % 64) & 1) != 0;
  }

  /// Spreads the lines of block `next` over the products of `users` steps.
  void plan_prefetch(std::int64_t next, int users) {
    prefetch_ = {};
    if (next < 0) return;
    const std::int64_t groups = (kBlockSize + kStepRows - 1) / kStepRows;
    const std::int64_t steps = users * groups *
                               (kBlockSize / kStepColumns * (words() / kStepDepth) +
                                dim_ / kStepColumns * (kBlockSize / Simd::kElementsPerWord / kStepDepth));
    prefetch_.next = tile_of(next);
    prefetch_.end = prefetch_.next + 2 * tile_bytes();
    prefetch_.lines = steps > 0 ? static_cast<int>((2 * tile_bytes() / 64 + steps - 1) / steps) : 0;
  }

  void begin_tile(int t) {
    const PrefillTile& tile = item_.tiles[t];
    float* scratch = tile_scratch(t);
    for (std::int64_t i = 0; i < kBlockSize * dim_; ++i) scratch[place_.out + i] = 0;
    for (std::int64_t i = 0; i < kBlockSize * PrefillScratch::kSumLanes; ++i) scratch[place_.sum + i] = 0;
    for (std::int64_t i = 0; i < kBlockSize; ++i) scratch[place_.maximum + i] = -kInfinity;
    waiting_[t] = -1;
    Word* packed = reinterpret_cast<Word*>(scratch + place_.q);
    const std::int64_t chunks = words() / kChunk;
    const std::int64_t stride = params_.num_heads * dim_;
    const float* q = params_.q + tile.first_token * stride + tile.head * dim_;
    for (int r = 0; r < tile.rows; ++r, q += stride) {
      Word* row = packed + r / kRows * kRows * words() + r % kRows * kChunk;
      const float* ahead = r + kRowsAhead < tile.rows ? q + kRowsAhead * stride : q;
      for (std::int64_t c = 0; c < chunks; ++c) {
        __builtin_prefetch(ahead + c * kChunk * Simd::kElementsPerWord);
        Simd::pack(q + c * kChunk * Simd::kElementsPerWord, row + c * kRows * kChunk);
      }
    }
  }

  /// Finds the block's K and V tiles, widened if the products do not take the pages' type.
  void load_block(std::int64_t block) {
    const std::byte* k = tile_of(block);
    const std::byte* v = k + tile_bytes();
    if (tile_bytes() == kBlockSize * words() * 4) {
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

  /// A block that a tile selects: one at a time, or as one of two.
  void take(int t, std::int64_t block) {
    if constexpr (kMostBlocks == 1) {
      step<1>(t, &block);
    } else if (waiting_[t] < 0) {
      waiting_[t] = block;
    } else {
      const std::int64_t blocks[2] = {waiting_[t], block};
      step<2>(t, blocks);
      waiting_[t] = -1;
    }
  }

  /// The next kBlocks key blocks of one tile, in rising order.
  template <int kBlocks>
  void step(int t, const std::int64_t* blocks) {
    const PrefillTile& tile = item_.tiles[t];
    float* scratch = tile_scratch(t);
    const Word* q = reinterpret_cast<const Word*>(scratch + place_.q);
    const bool diagonal = blocks[kBlocks - 1] == tile.block_row;
    // The first query's last key in the last block: row r sees keys 0..first_last + r.
    const int first_last = diagonal ? static_cast<int>(tile.first_position % kBlockSize) : 64;

    if constexpr (kMatrixTiles)
      for (int i = 0; i < kBlocks; ++i) score_tiles(tile.rows, q, blocks[i], i);
    else
      score_products(tile.rows, first_last, q);

    if (diagonal)
      softmax<kBlocks, true>(tile.rows, first_last, scratch, blocks);
    else
      softmax<kBlocks, false>(tile.rows, first_last, scratch, blocks);

    if (params_.out == nullptr) return;
    if constexpr (kMatrixTiles)
      value_tiles<kBlocks>(tile.rows, blocks, scratch + place_.out);
    else
      value_products(tile.rows, first_last, scratch + place_.out);
  }

  /// Scores with all keys of a block, into the `index`-th 64 columns. Pages are what matrix tiles multiply.
  void score_tiles(int rows, const Word* q, std::int64_t block, int index) {
    const Word* k = reinterpret_cast<const Word*>(tile_of(block));
    Simd::template product<false>(rows, kBlockSize, words(), q, words(), &k, 1, kBlockSize,
                                  scratch_ + place_.scores + index * kBlockSize, kScores,
                                  [this] { prefetch_.some(); });
  }

  /// Adds the probabilities of kBlocks blocks, which lie where their scores were, times the blocks' values.
  template <int kBlocks>
  void value_tiles(int rows, const std::int64_t* blocks, float* out) {
    const Word* v[kBlocks];
    for (int i = 0; i < kBlocks; ++i) v[i] = reinterpret_cast<const Word*>(tile_of(blocks[i]) + tile_bytes());
    Simd::template product<true>(rows, dim_, kBlockSize / Simd::kElementsPerWord,
                                 reinterpret_cast<const Word*>(scratch_ + place_.scores), kScores, v, kBlocks,
                                 dim_, out, dim_, [this] { prefetch_.some(); });
  }

  /// Scores of the packed queries with the loaded block's keys, as far as the rows see them.
  void score_products(int tile_rows, int first_last, const Word* q) {
    float* scores = scratch_ + place_.scores;
    for (int first = 0; first < tile_rows; first += kRows, q += kRows * words()) {
      const int rows = tile_rows - first < kRows ? tile_rows - first : kRows;
      const int last = first_last + first + rows - 1;  // of the keys that the group's last row sees
      with_constant<kRows>(rows, [&]<int kCount>() {
        for (int column = 0; column < kBlockSize && column <= last; column += kPanel) {
          const int columns = last + 1 - column < kPanel ? last + 1 - column : kPanel;
          with_constant<Simd::kVectors>((columns + kLanes - 1) / kLanes, [&]<int kWidth>() {
            score_product<Simd, kCount, kWidth>(words(), q, k_ + column, scores + first * kBlockSize + column,
                                                prefetch_);
          });
        }
      });
    }
  }

  /// Adds the probabilities, which lie where the scores were, times the loaded block's values.
  void value_products(int tile_rows, int first_last, float* tile_out) {
    const float* scores = scratch_ + place_.scores;
    for (int first = 0; first < tile_rows; first += kRows) {
      const int rows = tile_rows - first < kRows ? tile_rows - first : kRows;
      const int last = first_last + first + rows - 1;
      const std::int64_t keys = last < kBlockSize - 1 ? last + 1 : kBlockSize;
      const std::int64_t depth = (keys + Simd::kElementsPerWord - 1) / Simd::kElementsPerWord;
      const Word* p = reinterpret_cast<const Word*>(scores + first * kBlockSize);
      float* out = tile_out + first * dim_;
      with_constant<kRows>(rows, [&]<int kCount>() {
        std::int64_t column = 0;
        for (; column + kPanel <= dim_; column += kPanel)
          value_product<Simd, kCount, Simd::kVectors>(depth, p, v_ + column, out + column, dim_, prefetch_);
        with_constant<Simd::kVectors - 1>(static_cast<int>((dim_ - column) / kLanes), [&]<int kWidth>() {
          value_product<Simd, kCount, kWidth>(depth, p, v_ + column, out + column, dim_, prefetch_);
        });
      });
    }
  }

  /// Scores to probabilities in place; moves maxima, sums and outputs where a row's maximum grew.
  template <int kBlocks, bool kDiagonal>
  void softmax(int rows, int first_last, float* scratch, const std::int64_t* blocks) {
    constexpr int kVectors = kBlocks * kRowVectors;
    float* scores = scratch_ + place_.scores;
    const Float scale = Simd::set(scale_);
    const bool keep_maxima = params_.pooled_target != nullptr;
    const int last_column = (kBlocks - 1) * static_cast<int>(kBlockSize) + first_last;  // of the first row
    for (int r = 0; r < rows; ++r, scores += kScores) {
      Float x[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        x[v] = Simd::load(scores + v * kLanes);
        if (kDiagonal) x[v] = Simd::replace_after(x[v], last_column + r - v * kLanes, -kInfinity);
      }
      Float most = x[0];
#pragma GCC unroll 2
      for (int i = 0; i < kBlocks; ++i) {
        Float most_of_block = x[i * kRowVectors];
#pragma GCC unroll 16
        for (int v = 1; v < kRowVectors; ++v)
          most_of_block = Simd::max(most_of_block, x[i * kRowVectors + v]);
        most_of_block = Simd::multiply(most_of_block, scale);
        if (keep_maxima)
          scratch[place_.block_maxima + blocks[i] * kBlockSize + r] = Simd::reduce_max(most_of_block);
        most = i == 0 ? most_of_block : Simd::max(most, most_of_block);
      }
      float& maximum = scratch[place_.maximum + r];
      float* sums = scratch + place_.sum + r * PrefillScratch::kSumLanes;
      if (Simd::any_greater(most, Simd::set(maximum + kSlack))) [[unlikely]] {
        const float grown = Simd::reduce_max(most);
        const Float factor = Simd::set(exp2f(maximum - grown));
        maximum = grown;
        Simd::store(sums, Simd::multiply(Simd::load(sums), factor));
        float* out = scratch + place_.out + r * dim_;
        for (std::int64_t i = 0; i < dim_; i += kLanes)
          Simd::store(out + i, Simd::multiply(Simd::load(out + i), factor));
      }
      const Float reference = Simd::set(-maximum);
      Float sum = Simd::load(sums);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        x[v] = Simd::exp2(Simd::fma(x[v], scale, reference));
        if (kDiagonal) x[v] = Simd::replace_after(x[v], last_column + r - v * kLanes, 0);
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
      maximum = sum > 0 ? maximum + log2f(sum) : -kInfinity;
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
      tile.pooled_target[block] = exp2f(most);
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
  Prefetch<Simd> prefetch_;
  std::int64_t waiting_[kMaxTiles];  // the block with which a tile waits for another, or -1
};

}  // namespace seer::cpu::prefill
