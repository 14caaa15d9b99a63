// Which 64x64 blocks of the attention map are computed: the one thing passed from a selector to a kernel.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace seer {

/// Tokens in a block of the attention map, in a gate block and in a page of the KV cache.
inline constexpr std::int64_t kBlockSize = 64;

inline constexpr std::int64_t blocks_for(std::int64_t tokens) {
  return (tokens + kBlockSize - 1) / kBlockSize;
}

/// 64-bit words that hold one bit for each key block.
inline constexpr std::int64_t mask_words_for(std::int64_t blocks) { return (blocks + 63) / 64; }

/// Blocks on and left of the diagonal in block rows [first_row, first_row + rows) of one head.
inline constexpr std::int64_t causal_blocks_of(std::int64_t first_row, std::int64_t rows) {
  return rows * first_row + rows * (rows + 1) / 2;
}

/// Bitmask over (query head, query block row, key block), one word of 64 key blocks after another.
/// Rows are absolute: row r of the mask is block row `first_row + r` of the whole attention map, and it may
/// hold key blocks 0..first_row + r only.
class BlockMask {
 public:
  BlockMask() = default;

  /// An empty mask of rows [first_row, first_row + num_rows).
  BlockMask(int num_heads, std::int64_t first_row, std::int64_t num_rows) {
    reset(num_heads, first_row, num_rows);
  }

  /// Gives the mask a new shape and clears it; keeps the memory.
  void reset(int num_heads, std::int64_t first_row, std::int64_t num_rows) {
    num_heads_ = num_heads;
    first_row_ = first_row;
    num_rows_ = num_rows;
    words_ = mask_words_for(first_row + num_rows);
    bits_.assign(static_cast<std::size_t>(num_heads * num_rows * words_), 0);
  }

  int num_heads() const { return num_heads_; }
  std::int64_t first_row() const { return first_row_; }
  std::int64_t num_rows() const { return num_rows_; }
  /// Words of one row; bit j % 64 of word j / 64 stands for key block j.
  std::int64_t words() const { return words_; }

  std::uint64_t* row(int head, std::int64_t row) { return bits_.data() + (head * num_rows_ + row) * words_; }
  const std::uint64_t* row(int head, std::int64_t row) const {
    return bits_.data() + (head * num_rows_ + row) * words_;
  }

  void set(int head, std::int64_t r, std::int64_t block) {
    row(head, r)[block / 64] |= std::uint64_t{1} << (block % 64);
  }
  bool test(int head, std::int64_t r, std::int64_t block) const {
    return (row(head, r)[block / 64] >> (block % 64) & 1) != 0;
  }
  /// Selects key blocks [begin, end) of a row.
  void set_range(int head, std::int64_t r, std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) set(head, r, block);
  }
  /// Selects all causal blocks.
  void set_all() {
    for (int head = 0; head < num_heads_; ++head)
      for (std::int64_t r = 0; r < num_rows_; ++r) set_range(head, r, 0, first_row_ + r + 1);
  }
  /// Selected key blocks of a row.
  std::int64_t count(int head, std::int64_t r) const {
    std::int64_t total = 0;
    const std::uint64_t* words = row(head, r);
    for (std::int64_t w = 0; w < words_; ++w) total += std::popcount(words[w]);
    return total;
  }

  /// Selected blocks of all heads and rows; density is their share of causal_blocks().
  std::int64_t selected_blocks() const {
    std::int64_t total = 0;
    for (const std::uint64_t word : bits_) total += std::popcount(word);
    return total;
  }
  std::int64_t causal_blocks() const { return num_heads_ * causal_blocks_of(first_row_, num_rows_); }

 private:
  int num_heads_ = 0;
  std::int64_t first_row_ = 0;
  std::int64_t num_rows_ = 0;
  std::int64_t words_ = 0;
  std::vector<std::uint64_t> bits_;
};

}  // namespace seer
