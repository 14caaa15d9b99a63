// Block masks to time attention with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::cuda {

/// Bitmask [heads, blocks, words] of words = ceil(blocks / 64): bit j % 64 of word j / 64 is key block j.
struct BenchMask {
  std::vector<std::uint64_t> bits;
  int heads = 0;       // query heads, or KV heads where a group shares its blocks
  double density = 0;  // selected over causal blocks
};

/// Throws Error naming --masks unless `kind` is one of make_mask()'s.
void check_mask_kind(const std::string& kind);

/// Whether a kind is a file, whose density is its own.
bool is_saved_mask(const std::string& kind);

/// A mask for `blocks` blocks. A row has its diagonal block and
///   random, group_random: others drawn uniformly, as many as top-k keeps at this density of the whole map;
///     for every query head, or one mask for a KV head's group
///   uneven: as random, but the number is drawn between none and twice as many
///   dense_head: as random, but every eighth head is dense
///   local: the first block and a band that ends at the diagonal, as many in all; by KV head
///   saved:PATH: what a file holds, words of 64 bits in the order above and the machine's byte order, for the
///     query heads or the KV heads; blocks after the diagonal are ignored
/// Throws Error when the file does not have either size.
BenchMask make_mask(const std::string& kind, int heads, int kv_heads, std::int64_t blocks, double density);

}  // namespace seer::cuda
