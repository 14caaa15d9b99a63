#include "cpu/attention/prefill.h"

#include <algorithm>
#include <vector>

#include "core/buffer.h"

namespace seer::cpu {
namespace {

struct Work {
  int kv_head = 0;
  int first_head = 0;
  int heads = 0;
  std::int64_t row = 0;  // from the first block row of the call
  std::int64_t cost = 0;
};

constexpr std::int64_t kHugePageFloats = (2 << 20) / 4;

using ItemBody = void (*)(const PrefillItem&);

ItemBody choose_body(CpuIsa isa, DType dtype) {
  switch (isa) {
    case CpuIsa::kPortable:
      return attention_prefill_item_portable;
    case CpuIsa::kAvx2:
      return attention_prefill_item_avx2;
    case CpuIsa::kAvx512:
      return attention_prefill_item_avx512;
    case CpuIsa::kAvx512Bf16:
      return dtype == DType::kBF16 ? attention_prefill_item_avx512bf16 : attention_prefill_item_avx512;
  }
  return nullptr;
}

}  // namespace

PrefillScratch::PrefillScratch(const PrefillAttentionParams& params, int num_tiles, std::int64_t num_blocks) {
  const std::int64_t dim = params.kv.head_dim;
  widened = kBlockSize * kBlockSize;
  tiles = widened + (params.kv.dtype == DType::kBF16 ? 2 * kBlockSize * dim : 0);
  out = kPaddedRows * dim;
  maximum = out + kBlockSize * dim;
  sum = maximum + kBlockSize;
  block_maxima = sum + kBlockSize * kSumLanes;
  tile_size = block_maxima + (params.pooled_target != nullptr ? num_blocks * kBlockSize : 0);
  size = tiles + num_tiles * tile_size;
}

void attention_prefill(const Context& context, const PrefillAttentionParams& params) {
  const std::int64_t first_row = params.q_offset / kBlockSize;
  const std::int64_t end = params.q_offset + params.num_tokens;
  const std::int64_t rows = blocks_for(end) - first_row;
  const int group = params.num_heads / params.kv.num_kv_heads;
  // A large group is cut into equal parts: each shares the K and V tiles of one pass.
  const int parts = (group + kMaxPrefillTiles - 1) / kMaxPrefillTiles;
  const int heads = (group + parts - 1) / parts;

  std::vector<Work> work;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (int kv_head = 0; kv_head < params.kv.num_kv_heads; ++kv_head) {
      for (int first = 0; first < group; first += heads) {
        Work item{kv_head, kv_head * group + first, std::min(heads, group - first), row, 0};
        for (int head = item.first_head; head < item.first_head + item.heads; ++head)
          item.cost += params.mask != nullptr ? params.mask->count(head, row) : first_row + row + 1;
        work.push_back(item);
      }
    }
  }
  // Longest first, so that threads end together.
  std::stable_sort(work.begin(), work.end(), [](const Work& a, const Work& b) { return a.cost > b.cost; });

  const ItemBody body = choose_body(context.isa(), params.kv.dtype);
  const PrefillScratch place(params, heads, blocks_for(end));
  context.parallel_for(static_cast<std::int64_t>(work.size()), [&](std::int64_t i, int) {
    const Work& w = work[static_cast<std::size_t>(i)];
    // Kept from call to call, and never below a huge page: clearing fresh pages and missing the TLB cost more
    // than the memory.
    static thread_local Buffer<float> buffer;
    buffer.reserve_discard(std::max(place.size, kHugePageFloats));
    PrefillTile tiles[kMaxPrefillTiles];
    const std::int64_t block_row = first_row + w.row;
    const std::int64_t first_position = std::max(params.q_offset, block_row * kBlockSize);
    const std::int64_t end_position = std::min(end, (block_row + 1) * kBlockSize);
    for (int t = 0; t < w.heads; ++t) {
      const int head = w.first_head + t;
      tiles[t].head = head;
      tiles[t].rows = static_cast<int>(end_position - first_position);
      tiles[t].first_token = first_position - params.q_offset;
      tiles[t].first_position = first_position;
      tiles[t].block_row = block_row;
      tiles[t].mask = params.mask != nullptr ? params.mask->row(head, w.row) : nullptr;
      if (params.pooled_target != nullptr)
        tiles[t].pooled_target = params.pooled_target + (head * rows + w.row) * params.pooled_target_stride;
    }
    body({&params, tiles, w.heads, w.kv_head, &place, buffer.data()});
  });
}

}  // namespace seer::cpu
