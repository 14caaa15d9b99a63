#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/device_array.h"
#include "device_fill.h"
#include "measure.h"
#include "ops/block_mask.h"

namespace seer::cuda {
namespace {

constexpr std::int64_t kCachesBytes = std::int64_t{1} << 29;  // several times L2
constexpr std::int64_t kMostCaches = 8;

/// Bitmask [lists, words] of `kept` blocks a list: the last one and others drawn uniformly.
std::vector<std::uint64_t> draw_lists(std::int64_t lists, std::int64_t blocks, std::int64_t kept) {
  const std::int64_t words = mask_words_for(blocks);
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(lists * words), 0);
  std::vector<std::int64_t> order(static_cast<std::size_t>(blocks - 1));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(2);
  for (std::int64_t list = 0; list < lists; ++list) {
    std::shuffle(order.begin(), order.end(), random);
    const auto set = [&](std::int64_t block) {
      bits[static_cast<std::size_t>(list * words + block / 64)] |= std::uint64_t{1} << (block % 64);
    };
    set(blocks - 1);
    for (std::int64_t i = 0; i < kept - 1; ++i) set(order[static_cast<std::size_t>(i)]);
  }
  return bits;
}

std::vector<std::int32_t> shuffled_pages(std::int64_t pages) {
  std::vector<std::int32_t> table(static_cast<std::size_t>(pages));
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937(1));
  return table;
}

/// The same attention as a prefill of one query a sequence, for the reference.
void check_decode(const DecodeAttentionParams& p, std::int64_t length, const DeviceArray<std::uint16_t>& out,
                  AttentionTiming& timing) {
  std::vector<std::int32_t> queries(static_cast<std::size_t>(p.batch + 1));
  std::iota(queries.begin(), queries.end(), 0);
  std::vector<std::int32_t> keys(queries.size());
  for (std::size_t b = 0; b < keys.size(); ++b)
    keys[b] = static_cast<std::int32_t>(static_cast<std::int64_t>(b) * length);
  const DeviceArray<std::int32_t> cu_seqlens_q(queries);
  const DeviceArray<std::int32_t> cu_seqlens_k(keys);
  PrefillAttentionParams r;
  r.q = p.q;
  r.q_token_stride = p.q_batch_stride;
  r.q_head_stride = p.q_head_stride;
  r.kv = p.kv;
  r.dtype = p.dtype;
  r.batch = p.batch;
  r.num_heads = p.num_heads;
  r.num_kv_heads = p.num_kv_heads;
  r.head_dim = p.head_dim;
  r.scale = p.scale;
  r.cu_seqlens_q = cu_seqlens_q.data();
  r.cu_seqlens_k = cu_seqlens_k.data();
  r.total_q = p.batch;
  r.max_rows = 1;
  r.mask = p.mask;
  r.mask_words = p.mask_words;
  r.mask_heads = p.num_kv_heads;
  check_output(r, 1, out, timing);
}

AttentionTiming time_decode(const AttentionBenchOptions& options, const DeviceRoof& roof, int batch,
                            std::int64_t length, double density, double dense_ms) {
  const int heads = options.heads;
  const int kv_heads = options.kv_heads;
  const std::int64_t dim = options.head_dim;
  const std::int64_t blocks = blocks_for(length);
  const std::int64_t kept =
      density < 1 ? std::max<std::int64_t>(1, std::llround(density * static_cast<double>(blocks))) : blocks;
  const std::int64_t page = 2 * kBlockSize * kv_heads * dim;
  const std::int64_t bytes = batch * kept * page * 2;
  const std::int64_t caches = std::clamp<std::int64_t>(kCachesBytes / bytes, 1, kMostCaches);
  const std::int64_t pages = caches * batch * blocks;
  DeviceArray<std::uint16_t> kv(pages * page);
  DeviceArray<std::uint16_t> q(batch * heads * dim);
  DeviceArray<std::uint16_t> out(q.size());
  fill_normal(options.dtype, q.data(), q.size(), 1);
  fill_normal(options.dtype, kv.data(), kv.size(), 2);
  const DeviceArray<std::int32_t> page_table(shuffled_pages(pages));
  const DeviceArray<std::int32_t> lengths(
      std::vector<std::int32_t>(static_cast<std::size_t>(batch), static_cast<std::int32_t>(length)));
  const DeviceArray<std::uint64_t> mask(
      draw_lists(static_cast<std::int64_t>(batch) * kv_heads, blocks, kept));
  DecodeAttentionParams p;
  p.q = q.data();
  p.out = out.data();
  p.q_batch_stride = p.out_batch_stride = heads * dim;
  p.q_head_stride = p.out_head_stride = dim;
  p.kv = {.k = kv.data(),
          .v = kv.data() + kBlockSize * dim,
          .token_stride = dim,
          .head_stride = 2 * kBlockSize * dim,
          .page_table = page_table.data(),
          .page_table_stride = blocks,
          .page_stride = page,
          .num_pages = pages};
  p.dtype = options.dtype;
  p.batch = batch;
  p.num_heads = heads;
  p.num_kv_heads = kv_heads;
  p.head_dim = options.head_dim;
  p.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  p.seqlens_k = lengths.data();
  p.mask = density < 1 ? mask.data() : nullptr;
  p.mask_words = mask_words_for(blocks);
  p.splits = options.splits;
  DeviceArray<std::uint8_t> workspace(static_cast<std::int64_t>(attention_decode_workspace(p)));
  workspace.fill_bytes(0);
  p.workspace = workspace.data();

  AttentionTiming timing{.op = "decode", .length = length, .batch = batch};
  timing.mask = density < 1 ? "random" : "dense";
  timing.density = static_cast<double>(kept) / static_cast<double>(blocks);
  if (options.check) {
    out.fill_bytes(0xff);
    attention_decode(p, nullptr);
    check_decode(p, length, out, timing);
  }
  std::int64_t call = 0;
  time_runs(
      options.repeats,
      [&] {
        p.kv.page_table = page_table.data() + call++ % caches * batch * blocks;
        attention_decode(p, nullptr);
      },
      timing);
  const auto selected = static_cast<double>(batch * kept);
  rate(roof, 4.0 * heads * kBlockSize * static_cast<double>(dim) * selected, static_cast<double>(bytes),
       dense_ms, timing);
  return timing;
}

}  // namespace

void bench_attention_decode(const AttentionBenchOptions& options, const AttentionReport& report) {
  const DeviceRoof roof = device_roof();
  for (const int batch : options.batches) {
    for (const std::int64_t length : options.lengths) {
      double dense_ms = 0;
      const auto time = [&](double density) {
        const AttentionTiming timing = time_decode(options, roof, batch, length, density, dense_ms);
        if (density == 1) dense_ms = timing.ms;
        report(timing);
        require_right(timing);
      };
      time(1);
      for (const double density : options.densities)
        if (density < 1) time(density);
    }
  }
}

}  // namespace seer::cuda
