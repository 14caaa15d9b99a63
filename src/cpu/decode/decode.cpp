#include <algorithm>
#include <atomic>
#include <bit>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "cpu/decode/kernels.h"

namespace seer::cpu {
namespace {

constexpr float kLog2E = 1.44269504088896340736f;
/// Blocks of an item: the least, and the number of items per KV head that it grows with.
constexpr std::int64_t kMinItemBlocks = 8;
constexpr std::int64_t kMaxItems = 32;
/// Runs of items handed to a thread at a time, per thread: few, because a run's first block is read without
/// having been prefetched, but more than one, so that a thread that is held up is waited for briefly.
constexpr std::int64_t kRunsPerThread = 2;
/// Blocks in all up to which one thread is faster than starting the others.
constexpr std::int64_t kSmallWork = 4;

const DecodeKernels& choose_kernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return kDecodeKernelsPortable;
    case CpuIsa::kAvx2:
      return kDecodeKernelsAvx2;
    case CpuIsa::kAvx512:
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      break;
  }
  return kDecodeKernelsAvx512;
}

/// One sequence and KV head.
struct Unit {
  std::int64_t first_listed = -1;  // its blocks among all listed ones; -1: every block
  std::int64_t num_blocks = 0;
  std::int64_t item_blocks = 0;
  std::int64_t first_item = 0, num_items = 0;
};

/// The set bits of a mask row below `num_blocks`.
void list_blocks(const std::uint64_t* mask, std::int64_t num_blocks, std::vector<std::int32_t>& list) {
  for (std::int64_t first = 0; first < num_blocks; first += 64) {
    std::uint64_t word = mask[first / 64];
    if (num_blocks - first < 64) word &= (std::uint64_t{1} << (num_blocks - first)) - 1;
    for (; word != 0; word &= word - 1)
      list.push_back(static_cast<std::int32_t>(first + std::countr_zero(word)));
  }
}

}  // namespace

void attention_decode(const Context& context, const DecodeAttentionParams& params) {
  const auto batch = static_cast<std::int64_t>(params.kv.size());
  const std::int64_t kv_heads = params.kv[0].num_kv_heads, dim = params.kv[0].head_dim;
  const std::int64_t group = params.num_heads / kv_heads;

  // Items depend on lengths and masks alone, so results do not depend on the number of threads.
  std::vector<Unit> units(static_cast<std::size_t>(batch * kv_heads));
  std::vector<std::int32_t> listed;
  std::int64_t num_items = 0, num_blocks = 0;
  for (std::int64_t u = 0; u < batch * kv_heads; ++u) {
    Unit& unit = units[static_cast<std::size_t>(u)];
    unit.num_blocks = blocks_for(params.kv[static_cast<std::size_t>(u / kv_heads)].length);
    if (params.mask != nullptr) {
      unit.first_listed = static_cast<std::int64_t>(listed.size());
      list_blocks(params.mask + u * params.mask_words, unit.num_blocks, listed);
      unit.num_blocks = static_cast<std::int64_t>(listed.size()) - unit.first_listed;
    }
    unit.item_blocks = std::max(kMinItemBlocks, (unit.num_blocks + kMaxItems - 1) / kMaxItems);
    unit.first_item = num_items;
    unit.num_items = (unit.num_blocks + unit.item_blocks - 1) / unit.item_blocks;
    num_items += unit.num_items;
    num_blocks += unit.num_blocks;
    if (unit.num_items == 0) std::fill_n(params.out + u * group * dim, group * dim, 0.0f);
  }

  struct Work {
    std::int64_t unit = 0, item = 0;
  };
  std::vector<Work> work;
  work.reserve(static_cast<std::size_t>(num_items));
  for (std::int64_t u = 0; u < batch * kv_heads; ++u)
    for (std::int64_t i = 0; i < units[static_cast<std::size_t>(u)].num_items; ++i) work.push_back({u, i});
  const auto first_tile = [&](const Work& w) {
    const Unit& unit = units[static_cast<std::size_t>(w.unit)];
    const std::int64_t first = w.item * unit.item_blocks;
    const std::int64_t block =
        unit.first_listed < 0 ? first : listed[static_cast<std::size_t>(unit.first_listed + first)];
    return params.kv[static_cast<std::size_t>(w.unit / kv_heads)].k_tile(block,
                                                                         static_cast<int>(w.unit % kv_heads));
  };

  const std::int64_t partial_size = DecodePartial::size(dim);
  const std::int64_t scaled_size = batch * params.num_heads * dim;
  Buffer<float> scratch(scaled_size + num_items * group * partial_size);
  float* partials = scratch.data() + scaled_size;
  for (std::int64_t i = 0; i < scaled_size; ++i) scratch[i] = params.q[i] * (params.scale * kLog2E);

  const DecodeKernels& kernels = choose_kernels(context.isa());
  const auto unfinished = std::make_unique<std::atomic<std::int64_t>[]>(units.size());
  for (std::size_t u = 0; u < units.size(); ++u) unfinished[u] = units[u].num_items;
  const auto run_item = [&](const Work& w, const std::byte* next) {
    const auto [u, i] = w;
    const Unit& unit = units[static_cast<std::size_t>(u)];
    float* unit_partials = partials + unit.first_item * group * partial_size;
    const std::int64_t first = i * unit.item_blocks;
    kernels.attend({.kv = &params.kv[static_cast<std::size_t>(u / kv_heads)],
                    .kv_head = static_cast<int>(u % kv_heads),
                    .group = static_cast<int>(group),
                    .q = scratch.data() + u * group * dim,
                    .blocks = unit.first_listed < 0 ? nullptr : listed.data() + unit.first_listed + first,
                    .first = first,
                    .count = std::min(unit.item_blocks, unit.num_blocks - first),
                    .next = next,
                    .partial = unit_partials + i * group * partial_size});
    // Whoever ends a unit's last item adds them up.
    if (unfinished[static_cast<std::size_t>(u)].fetch_sub(1) > 1) return;
    for (std::int64_t h = 0; h < group; ++h)
      kernels.combine(unit_partials + h * partial_size, group * partial_size, unit.num_items, dim,
                      params.out + (u * group + h) * dim);
  };
  const std::int64_t runs =
      num_blocks <= kSmallWork ? 1 : std::min(num_items, context.num_threads() * kRunsPerThread);
  context.parallel_for(runs, [&](std::int64_t r, int) {
    const std::int64_t end = num_items * (r + 1) / runs;
    for (std::int64_t w = num_items * r / runs; w < end; ++w) {
      const auto at = static_cast<std::size_t>(w);
      run_item(work[at], w + 1 < end ? first_tile(work[at + 1]) : nullptr);
    }
  });
}

}  // namespace seer::cpu
