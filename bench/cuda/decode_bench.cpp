#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/device_array.h"
#include "decode_gate_pipeline.h"
#include "device_fill.h"
#include "measure.h"
#include "ops/block_mask.h"

namespace seer::cuda {
namespace {

constexpr std::int64_t kCachesBytes = std::int64_t{1} << 29;  // several times L2
constexpr std::int64_t kMostCaches = 8;
constexpr int kGraphCalls = 16;

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

/// One batch over several caches, as layers have them.
class Problem {
 public:
  Problem(const AttentionBenchOptions& options, const DeviceRoof& roof, int batch, std::int64_t length,
          double density, double dense_ms)
      : options_(options),
        roof_(roof),
        dense_ms_(dense_ms),
        length_(length),
        blocks_(blocks_for(length)),
        kept_(density < 1 ? std::max<std::int64_t>(1, std::llround(density * static_cast<double>(blocks_)))
                          : blocks_),
        page_(2 * kBlockSize * options.kv_heads * options.head_dim),
        caches_(static_cast<int>(
            std::clamp<std::int64_t>(kCachesBytes / (batch * kept_ * page_ * 2), 1, kMostCaches))),
        kv_(caches_ * batch * blocks_ * page_),
        q_(std::int64_t{batch} * options.heads * options.head_dim),
        out_(q_.size()),
        page_table_(shuffled_pages(caches_ * batch * blocks_)),
        lengths_(
            std::vector<std::int32_t>(static_cast<std::size_t>(batch), static_cast<std::int32_t>(length))) {
    const std::int64_t dim = options.head_dim;
    fill_normal(options.dtype, q_.data(), q_.size(), 1);
    fill_normal(options.dtype, kv_.data(), kv_.size(), 2);
    p_.q = q_.data();
    p_.out = out_.data();
    p_.q_batch_stride = p_.out_batch_stride = options.heads * dim;
    p_.q_head_stride = p_.out_head_stride = dim;
    p_.kv = {.k = kv_.data(),
             .v = kv_.data() + kBlockSize * dim,
             .token_stride = dim,
             .head_stride = 2 * kBlockSize * dim,
             .page_table = page_table_.data(),
             .page_table_stride = blocks_,
             .page_stride = page_,
             .num_pages = page_table_.size()};
    p_.dtype = options.dtype;
    p_.batch = batch;
    p_.num_heads = options.heads;
    p_.num_kv_heads = options.kv_heads;
    p_.head_dim = options.head_dim;
    p_.scale = 1.0f / std::sqrt(static_cast<float>(dim));
    p_.seqlens_k = lengths_.data();
    p_.mask_words = mask_words_for(blocks_);
    p_.splits = options.splits;
    workspace_ = DeviceArray<std::uint8_t>(static_cast<std::int64_t>(attention_decode_workspace(p_)));
    workspace_.fill_bytes(0);
    p_.workspace = workspace_.data();
  }

  /// Dense, or blocks drawn at random.
  AttentionTiming time() {
    const bool is_dense = kept_ == blocks_;
    const DeviceArray<std::uint64_t> mask(
        draw_lists(static_cast<std::int64_t>(p_.batch) * p_.num_kv_heads, blocks_, kept_));
    p_.mask = is_dense ? nullptr : mask.data();
    AttentionTiming timing = start(is_dense ? "dense" : "random");
    timing.density = static_cast<double>(kept_) / static_cast<double>(blocks_);
    int call = 0;
    time_runs(
        options_.repeats, [&] { attend(call++ % caches_, nullptr); }, timing);
    finish(timing);
    return timing;
  }

  /// The blocks that a decode gate chooses, its time included.
  AttentionTiming time_gate() {
    DecodeGatePipeline gate({.layers = caches_,
                             .batch = p_.batch,
                             .length = length_,
                             .heads = p_.num_heads,
                             .kv_heads = p_.num_kv_heads,
                             .head_dim = p_.head_dim,
                             .dtype = p_.dtype},
                            kept_);
    p_.mask = gate.mask();
    const double density = gate.density();
    AttentionTiming timing = start(kGateMask), attention;
    timing.density = density;
    // Enough calls that the graph's own start does not count.
    const int calls = (kGraphCalls + caches_ - 1) / caches_ * caches_;
    const auto time_calls = [&](bool with_gate, AttentionTiming& result) {
      const Graph graph([&](Stream stream) {
        for (int call = 0; call < calls; ++call) {
          if (with_gate) gate.run(call % caches_, stream);
          attend(call % caches_, stream);
        }
      });
      time_runs(
          options_.repeats, [&] { graph.launch(nullptr); }, result);
      for (double* ms : {&result.ms, &result.ms_least, &result.ms_most}) *ms /= calls;
    };
    time_calls(false, attention);
    time_calls(true, timing);
    timing.gate_ms = timing.ms - attention.ms;
    finish(timing);
    return timing;
  }

 private:
  void attend(int cache, Stream stream) {
    p_.kv.page_table = page_table_.data() + cache * p_.batch * blocks_;
    attention_decode(p_, stream);
  }

  AttentionTiming start(const std::string& mask) {
    AttentionTiming timing{.op = "decode", .length = length_, .batch = p_.batch, .mask = mask};
    if (options_.check) {
      out_.fill_bytes(0xff);
      attend(0, nullptr);
      check_decode(p_, length_, out_, timing);
    }
    return timing;
  }

  void finish(AttentionTiming& timing) const {
    const double selected = timing.density * static_cast<double>(p_.batch * blocks_);
    rate(roof_, 4.0 * p_.num_heads * kBlockSize * p_.head_dim * selected,
         selected * static_cast<double>(page_ * 2), dense_ms_, timing);
  }

  const AttentionBenchOptions& options_;
  const DeviceRoof& roof_;
  double dense_ms_;
  std::int64_t length_, blocks_, kept_, page_;
  int caches_;
  DeviceArray<std::uint16_t> kv_, q_, out_;
  DeviceArray<std::int32_t> page_table_, lengths_;
  DeviceArray<std::uint8_t> workspace_;
  DecodeAttentionParams p_;
};

}  // namespace

void bench_attention_decode(const AttentionBenchOptions& options, const AttentionReport& report) {
  const DeviceRoof roof = device_roof();
  const bool with_gate =
      std::find(options.masks.begin(), options.masks.end(), kGateMask) != options.masks.end();
  for (const int batch : options.batches) {
    for (const std::int64_t length : options.lengths) {
      const auto finish = [&](const AttentionTiming& timing) {
        report(timing);
        require_right(timing);
      };
      const AttentionTiming dense = Problem(options, roof, batch, length, 1, 0).time();
      finish(dense);
      for (const double density : options.densities) {
        if (density >= 1) continue;
        Problem problem(options, roof, batch, length, density, dense.ms);
        finish(problem.time());
        if (with_gate) finish(problem.time_gate());
      }
    }
  }
}

}  // namespace seer::cuda
