#include "cpu/attention/prefill.h"

#include <algorithm>
#include <vector>

#include "core/buffer.h"

namespace seer::cpu {
namespace {

/// Consecutive tiles that share a KV head.
struct Work {
  std::size_t first_tile = 0;
  int num_tiles = 0;
  int kv_head = 0;
  std::int64_t cost = 0;  // selected blocks
};

/// Tiles that pay for widening a bf16 block or fetching a float32 one.
constexpr int kTilesToShare = 4;
/// Items a thread should get at least, to end together with the others.
constexpr int kItemsPerThread = 8;
constexpr std::int64_t kHugePageFloats = (2 << 20) / 4;

PrefillItemBody choose_body(CpuIsa isa, DType dtype, int head_dim) {
  switch (isa) {
    case CpuIsa::kPortable:
      return attention_prefill_item_portable;
    case CpuIsa::kAvx2:
      return attention_prefill_item_avx2;
    case CpuIsa::kAvx512:
      return attention_prefill_item_avx512;
    case CpuIsa::kAvx512Bf16:
      return dtype == DType::kBF16 ? attention_prefill_item_avx512bf16 : attention_prefill_item_avx512;
    case CpuIsa::kAmxBf16:
      return dtype == DType::kBF16 && head_dim % 32 == 0 ? attention_prefill_item_amxbf16
                                                         : choose_body(CpuIsa::kAvx512Bf16, dtype, head_dim);
  }
  return nullptr;
}

/// `row` counts from the first block row of the call.
PrefillTile make_tile(const PrefillAttentionParams& params, int head, std::int64_t row) {
  const std::int64_t first_row = params.q_offset / kBlockSize;
  const std::int64_t end = params.q_offset + params.num_tokens;
  const std::int64_t rows = blocks_for(end) - first_row;
  PrefillTile tile;
  tile.head = head;
  tile.block_row = first_row + row;
  tile.first_position = std::max(params.q_offset, tile.block_row * kBlockSize);
  tile.first_token = tile.first_position - params.q_offset;
  tile.rows = static_cast<int>(std::min(end, (tile.block_row + 1) * kBlockSize) - tile.first_position);
  if (params.mask != nullptr) tile.mask = params.mask->row(head, row);
  if (params.pooled_target != nullptr)
    tile.pooled_target = params.pooled_target + (head * rows + row) * params.pooled_target_stride;
  return tile;
}

}  // namespace

PrefillScratch::PrefillScratch(const PrefillAttentionParams& params, int num_tiles, std::int64_t num_blocks) {
  const std::int64_t dim = params.kv.head_dim;
  widened = 2 * kBlockSize * kBlockSize;
  tiles = widened + (params.kv.dtype == DType::kBF16 ? 2 * kBlockSize * dim : 0);
  out = kPaddedRows * dim;
  maximum = out + kBlockSize * dim;
  sum = maximum + kBlockSize;
  block_maxima = sum + kBlockSize * kSumLanes;
  tile_size = block_maxima + (params.pooled_target != nullptr ? num_blocks * kBlockSize : 0);
  size = tiles + num_tiles * tile_size;
}

void attention_prefill(const Context& context, const PrefillAttentionParams& params) {
  attention_prefill(context, params, choose_body(context.isa(), params.kv.dtype, params.kv.head_dim));
}

void attention_prefill(const Context& context, const PrefillAttentionParams& params, PrefillItemBody body) {
  const std::int64_t first_row = params.q_offset / kBlockSize;
  const std::int64_t end = params.q_offset + params.num_tokens;
  const std::int64_t rows = blocks_for(end) - first_row;
  const int kv_heads = params.kv.num_kv_heads;
  const int group = params.num_heads / kv_heads;
  // An item is a KV head's query heads in one block row: a large group is cut into equal parts, a small one
  // takes more rows where there are enough. None of this changes a tile's result.
  const int parts = (group + kMaxTiles - 1) / kMaxTiles;
  const int heads = (group + parts - 1) / parts;
  const std::int64_t item_rows =
      std::clamp<std::int64_t>(rows * kv_heads * parts / (kItemsPerThread * context.num_threads()), 1,
                               std::max(kTilesToShare / heads, 1));

  std::vector<PrefillTile> tiles;
  std::vector<Work> work;
  tiles.reserve(static_cast<std::size_t>(params.num_heads * rows));
  for (std::int64_t first_of_item = 0; first_of_item < rows; first_of_item += item_rows) {
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      for (int first = 0; first < group; first += heads) {
        Work item{tiles.size(), 0, kv_head, 0};
        for (std::int64_t row = first_of_item; row < std::min(first_of_item + item_rows, rows); ++row) {
          for (int i = first; i < std::min(first + heads, group); ++i) {
            const int head = kv_head * group + i;
            tiles.push_back(make_tile(params, head, row));
            item.cost += params.mask != nullptr ? params.mask->count(head, row) : first_row + row + 1;
            ++item.num_tiles;
          }
        }
        work.push_back(item);
      }
    }
  }
  // Longest first, so that threads end together.
  std::stable_sort(work.begin(), work.end(), [](const Work& a, const Work& b) { return a.cost > b.cost; });

  const PrefillScratch place(params, static_cast<int>(heads * item_rows), blocks_for(end));
  context.parallel_for(static_cast<std::int64_t>(work.size()), [&](std::int64_t i, int) {
    const Work& item = work[static_cast<std::size_t>(i)];
    // Kept from call to call, and never below a huge page: clearing fresh pages and missing the TLB cost more
    // than the memory.
    static thread_local Buffer<float> scratch;
    scratch.reserve_discard(std::max(place.size, kHugePageFloats));
    body({&params, tiles.data() + item.first_tile, item.num_tiles, item.kv_head, &place, scratch.data()});
  });
}

}  // namespace seer::cpu
