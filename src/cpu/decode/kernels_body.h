// The body of decode attention as a template over a SIMD wrapper (cpu/simd.h).
//
// For each key block and up to kHeads heads of the group, which share every word that is read:
//   s = q K^T         64 scores a head, in registers; K as stored
//   p = 2^(s - m)     m: the head's reference maximum, moved only when a score exceeds it by 2^8
//   o = o + p V       in the head's partial result; V as stored
// While a block is in work the same lines of the next one are asked for.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>

#include "cpu/decode/kernels.h"

namespace seer::cpu::decode_body {

inline constexpr int kMaxHeads = 4;
inline constexpr float kSlack = 8.0f;

/// How a tile's 32-bit words become lanes of float32: a bf16 word holds two depths of the product.
struct F32Words {
  static constexpr int kDepths = 1;
  template <class Simd>
  static typename Simd::Float widen(const std::uint32_t* word, int) {
    return Simd::load(reinterpret_cast<const float*>(word));
  }
};
struct Bf16Words {
  static constexpr int kDepths = 2;
  template <class Simd>
  static typename Simd::Float widen(const std::uint32_t* word, int depth) {
    return depth == 0 ? Simd::widen_low(word) : Simd::widen_high(word);
  }
};

/// c[h][column] (+)= sum over depth of a[h][depth] * tile[depth][column], for kHeads rows and kVectors *
/// lanes columns. `ahead` is the place of `tile` in the next block.
template <class Simd, class Words, int kHeads, int kVectors, bool kAdd>
inline void product(std::int64_t words, const float* a, std::int64_t a_stride, const std::uint32_t* tile,
                    const std::uint32_t* ahead, std::int64_t tile_stride, float* c, std::int64_t c_stride) {
  typename Simd::Float sum[kHeads][kVectors];
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      sum[h][v] = kAdd ? Simd::load(c + h * c_stride + v * Simd::kLanes) : Simd::zero();
  for (std::int64_t i = 0; i < words; ++i) {
    constexpr int kWidth = kVectors * Simd::kLanes;
#pragma GCC unroll 8
    for (int word = 0; word < kWidth; word += 16) __builtin_prefetch(ahead + word, 0, 2);
#pragma GCC unroll 2
    for (int depth = 0; depth < Words::kDepths; ++depth) {
      typename Simd::Float row[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) row[v] = Words::template widen<Simd>(tile + v * Simd::kLanes, depth);
#pragma GCC unroll 8
      for (int h = 0; h < kHeads; ++h) {
        const typename Simd::Float x = Simd::set(a[h * a_stride + depth]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[h][v] = Simd::fma(x, row[v], sum[h][v]);
      }
    }
    a += Words::kDepths;
    tile += tile_stride;
    ahead += tile_stride;
  }
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) Simd::store(c + h * c_stride + v * Simd::kLanes, sum[h][v]);
}

template <class Simd, class Words>
class Attend {
  using Float = typename Simd::Float;
  static constexpr std::int64_t kLanes = Simd::kLanes;
  static constexpr int kVectors = Simd::kLanes == 16 ? 4 : 2;
  static constexpr std::int64_t kPanel = kVectors * kLanes;
  static constexpr int kRowVectors = static_cast<int>(kBlockSize / kLanes);

 public:
  explicit Attend(const DecodeItem& item)
      : item_(item),
        dim_(item.kv->head_dim),
        tile_words_(kBlockSize * dim_ / Words::kDepths),
        partial_size_(DecodePartial::size(dim_)) {}

  void run() {
    for (std::int64_t h = 0; h < item_.group; ++h) {
      float* partial = item_.partial + h * partial_size_;
      for (std::int64_t i = 0; i < dim_ + DecodePartial::kLanes; i += kLanes)
        Simd::store(partial + i, Simd::zero());
      partial[dim_ + DecodePartial::kLanes] = -__builtin_inff();
    }
    for (std::int64_t i = 0; i < item_.count; ++i) {
      const std::int64_t block = block_at(i);
      k_ = tiles_of(block);
      if (i + 1 < item_.count)
        ahead_ = tiles_of(block_at(i + 1));
      else
        ahead_ = item_.next == nullptr ? k_ : reinterpret_cast<const std::uint32_t*>(item_.next);
      const std::int64_t left = item_.kv->length - block * kBlockSize;
      keys_ = left < kBlockSize ? left : kBlockSize;
      for (std::int64_t first = 0; first < item_.group; first += kMaxHeads) {
        switch (item_.group - first) {
          case 1:
            heads<1>(first);
            break;
          case 2:
            heads<2>(first);
            break;
          case 3:
            heads<3>(first);
            break;
          default:
            heads<kMaxHeads>(first);
        }
        ahead_ = k_;
      }
    }
  }

 private:
  std::int64_t block_at(std::int64_t i) const {
    return item_.blocks == nullptr ? item_.first + i : item_.blocks[i];
  }

  /// A block's K tile, which its V tile follows.
  const std::uint32_t* tiles_of(std::int64_t block) const {
    const PagedKv& kv = *item_.kv;
    const std::byte* page = kv.pool + kv.page_table[block] * kv.page_stride;
    return reinterpret_cast<const std::uint32_t*>(page) + 2 * item_.kv_head * tile_words_;
  }

  template <int kHeads>
  void heads(std::int64_t first) {
    alignas(64) float scores[kHeads * kBlockSize];
    const float* q = item_.q + first * dim_;
    for (std::int64_t column = 0; column < keys_; column += kPanel)
      product<Simd, Words, kHeads, kVectors, false>(dim_ / Words::kDepths, q, dim_, k_ + column,
                                                    ahead_ + column, kBlockSize, scores + column, kBlockSize);
    float* out = item_.partial + first * partial_size_;
    for (int h = 0; h < kHeads; ++h) softmax(scores + h * kBlockSize, out + h * partial_size_);

    const std::int64_t words = (keys_ + Words::kDepths - 1) / Words::kDepths;
    const std::uint32_t* v = k_ + tile_words_;
    const std::uint32_t* ahead = ahead_ + tile_words_;
    std::int64_t column = 0;
    for (; column + kPanel <= dim_; column += kPanel)
      values<kHeads, kVectors>(words, scores, v + column, ahead + column, out + column);
    for (; column < dim_; column += kLanes)
      values<kHeads, 1>(words, scores, v + column, ahead + column, out + column);
  }

  template <int kHeads, int kWidth>
  void values(std::int64_t words, const float* p, const std::uint32_t* v, const std::uint32_t* ahead,
              float* out) {
    product<Simd, Words, kHeads, kWidth, true>(words, p, kBlockSize, v, ahead, dim_, out, partial_size_);
  }

  /// 64 scores of one head to probabilities, in place.
  void softmax(float* scores, float* partial) {
    const Float never = Simd::set(-__builtin_inff());
    Float x[kRowVectors];
    Float most = never;
#pragma GCC unroll 16
    for (int v = 0; v < kRowVectors; ++v) {
      // Columns past the last key were not computed, or hold what unused slots gave.
      const int last = static_cast<int>(keys_ - 1 - v * kLanes);
      x[v] = last < 0 ? never : Simd::replace_after(Simd::load(scores + v * kLanes), last, -__builtin_inff());
      most = Simd::max(most, x[v]);
    }
    float& maximum = partial[dim_ + DecodePartial::kLanes];
    float* sums = partial + dim_;
    if (Simd::any_greater(most, Simd::set(maximum + kSlack))) [[unlikely]] {
      const float grown = Simd::reduce_max(most);
      const Float factor = Simd::set(exp2f(maximum - grown));
      maximum = grown;
      for (std::int64_t i = 0; i < dim_ + kLanes; i += kLanes)
        Simd::store(partial + i, Simd::multiply(Simd::load(partial + i), factor));
    }
    const Float reference = Simd::set(maximum);
    Float sum = Simd::load(sums);
#pragma GCC unroll 16
    for (int v = 0; v < kRowVectors; ++v) {
      const int last = static_cast<int>(keys_ - 1 - v * kLanes);
      // The second difference is 0, or the NaN that exp2 may lose.
      const Float power = x[v] - reference;
      x[v] = last < 0 ? Simd::zero() : Simd::replace_after(Simd::exp2(power) + (power - power), last, 0);
      sum = Simd::add(sum, x[v]);
      Simd::store(scores + v * kLanes, x[v]);
    }
    Simd::store(sums, sum);
  }

  const DecodeItem& item_;
  const std::int64_t dim_;
  const std::int64_t tile_words_;
  const std::int64_t partial_size_;
  const std::uint32_t* k_ = nullptr;
  const std::uint32_t* ahead_ = nullptr;
  std::int64_t keys_ = 0;  // of the block in work
};

template <class Simd>
void attend(const DecodeItem& item) {
  if (item.kv->dtype == DType::kBF16)
    Attend<Simd, Bf16Words>(item).run();
  else
    Attend<Simd, F32Words>(item).run();
}

template <class Simd>
void combine(const float* partials, std::int64_t stride, std::int64_t count, std::int64_t head_dim,
             float* out) {
  using Float = typename Simd::Float;
  const std::int64_t maximum = head_dim + DecodePartial::kLanes;
  float most = partials[maximum];
  for (std::int64_t i = 1; i < count; ++i)
    if (partials[i * stride + maximum] > most) most = partials[i * stride + maximum];
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float* partial = partials + i * stride;
    const float factor = exp2f(partial[maximum] - most);
    sum += factor * Simd::reduce_add(Simd::load(partial + head_dim));
    const Float factors = Simd::set(factor);
    for (std::int64_t column = 0; column < head_dim; column += Simd::kLanes) {
      const Float before = i == 0 ? Simd::zero() : Simd::load_unaligned(out + column);
      Simd::store_unaligned(out + column, Simd::fma(factors, Simd::load(partial + column), before));
    }
  }
  const Float inverse = Simd::set(1 / sum);
  for (std::int64_t column = 0; column < head_dim; column += Simd::kLanes)
    Simd::store_unaligned(out + column, Simd::multiply(Simd::load_unaligned(out + column), inverse));
}

}  // namespace seer::cpu::decode_body
