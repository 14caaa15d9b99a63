#include "masks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <fstream>
#include <string_view>

#include "core/check.h"
#include "ops/block_mask.h"

namespace seer::cuda {
namespace {

constexpr std::array<std::string_view, 5> kDrawn = {"random", "group_random", "uneven", "dense_head",
                                                    "local"};
constexpr std::string_view kSaved = "saved:";

/// Blocks that a row keeps so that the whole causal map has about this density (the nz_ratio rule).
std::int64_t blocks_per_row(double density, std::int64_t blocks) {
  return std::max<std::int64_t>(1, std::llround((1 - std::sqrt(1 - density)) * static_cast<double>(blocks)));
}

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Uniform numbers in [0, 1), a stream for every row of every head.
class RowRandom {
 public:
  explicit RowRandom(std::int64_t row) : state_(mix(static_cast<std::uint64_t>(row + 1) * kStep)) {}
  double operator()() {
    state_ += kStep;
    return static_cast<double>(mix(state_) >> 11) * 0x1p-53;
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ull;
  std::uint64_t state_;
};

void set(std::uint64_t* row, std::int64_t block) { row[block / 64] |= std::uint64_t{1} << (block % 64); }

std::vector<std::uint64_t> draw_mask(const std::string& kind, int heads, std::int64_t blocks,
                                     double density) {
  const std::int64_t words = mask_words_for(blocks);
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(heads * blocks * words), 0);
#pragma omp parallel for schedule(dynamic, 64) collapse(2)
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t r = 0; r < blocks; ++r) {
      std::uint64_t* row = bits.data() + (h * blocks + r) * words;
      RowRandom uniform(h * blocks + r);
      set(row, r);
      std::int64_t wanted = blocks_per_row(density, blocks) - 1;
      if (kind == "uneven") wanted = std::llround(2 * uniform() * static_cast<double>(wanted));
      if (kind == "dense_head" && h % 8 == 3) wanted = r;
      wanted = std::min(wanted, r);
      if (kind == "local") {
        if (wanted > 0) set(row, 0);
        for (std::int64_t j = r - wanted + 1; j < r; ++j) set(row, j);
        continue;
      }
      for (std::int64_t j = 0; j < r && wanted > 0; ++j) {
        if (uniform() * static_cast<double>(r - j) >= static_cast<double>(wanted)) continue;
        set(row, j);
        --wanted;
      }
    }
  }
  return bits;
}

/// Reads a mask for either number of heads; which one is in `mask.heads` then.
void read_mask(const std::string& path, int heads, int kv_heads, std::int64_t blocks, BenchMask& mask) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  SEER_CHECK(file.good(), "--masks: cannot read {}", path);
  const auto found = static_cast<std::int64_t>(file.tellg());
  const std::int64_t words = mask_words_for(blocks);
  const std::int64_t head_bytes = blocks * words * 8;
  SEER_CHECK(found == heads * head_bytes || found == kv_heads * head_bytes,
             "--masks: {}: expected {} bytes ({} heads x {} rows x {} words of 64 bits) or {} ({} KV heads), "
             "found {}",
             path, heads * head_bytes, heads, blocks, words, kv_heads * head_bytes, kv_heads, found);
  mask.heads = static_cast<int>(found / head_bytes);
  mask.bits.resize(static_cast<std::size_t>(found / 8));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(mask.bits.data()), found);
  SEER_CHECK(file.good(), "--masks: cannot read {}", path);
  for (int h = 0; h < mask.heads; ++h) {
    for (std::int64_t r = 0; r < blocks; ++r) {
      std::uint64_t* row = mask.bits.data() + (h * blocks + r) * words;
      row[r / 64] &= ~std::uint64_t{0} >> (63 - r % 64);
      std::fill(row + r / 64 + 1, row + words, 0);
    }
  }
}

}  // namespace

bool is_saved_mask(const std::string& kind) { return kind.starts_with(kSaved); }

void check_mask_kind(const std::string& kind) {
  SEER_CHECK(is_saved_mask(kind) || std::find(kDrawn.begin(), kDrawn.end(), kind) != kDrawn.end(),
             "--masks {}: expected random, group_random, uneven, dense_head, local or saved:PATH", kind);
}

BenchMask make_mask(const std::string& kind, int heads, int kv_heads, std::int64_t blocks, double density) {
  check_mask_kind(kind);
  BenchMask mask;
  if (is_saved_mask(kind)) {
    read_mask(kind.substr(kSaved.size()), heads, kv_heads, blocks, mask);
  } else {
    mask.heads = kind == "group_random" || kind == "local" ? kv_heads : heads;
    mask.bits = draw_mask(kind, mask.heads, blocks, density);
  }
  std::int64_t selected = 0;
  for (const std::uint64_t word : mask.bits) selected += std::popcount(word);
  const double causal = 0.5 * static_cast<double>(mask.heads) * static_cast<double>(blocks * (blocks + 1));
  mask.density = static_cast<double>(selected) / causal;
  return mask;
}

}  // namespace seer::cuda
