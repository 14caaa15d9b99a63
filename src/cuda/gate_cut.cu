// The best blocks of a row up to a cut: rules kNzRatio, kTopP and kResidual.
//
// Whether the next block of a given score is wanted depends on the number or mass of the better ones alone
// and falls with the score. So scores become integers of 23 bits between a row's least and largest, and the
// cut is found as digits are: a histogram of what is open, 128 bins of numbers or of mass, narrows the cut to
// one bin. When a bin holds at most 32 blocks, the last pass writes the bits of what lies above it and
// collects what lies in it; a warp sorts that, with its columns, and adds what is still wanted. Every pass
// multiplies rows and keys again (gate_rows.cuh). Where even one integer holds more than 32 blocks, they are
// ties, and the last pass goes by their columns alone.
#include "cuda/gate_rows.cuh"

namespace seer::cuda {
namespace {

constexpr int kStages = 3;
constexpr int kBins = 128;
constexpr int kWarpRows = 16;
constexpr int kMostCandidates = 32;
/// Integers of scores, as floats in [2^23, 2^24), where neighbours differ by one; some room for rounding.
constexpr float kLeast = 0x1p23f + 16, kMost = 0x1p24f - 16;
constexpr float kMassUnit = 0x1p-31f;
constexpr int kColumnBits = 12;
static_assert(1 << kColumnBits == kMaxSelectBlocks);

/// A warp's rows: a histogram each, later the blocks of the open bin and their number.
union RowScratch {
  std::uint32_t bins[kBins];
  struct {
    std::uint32_t keys[kMostCandidates];
    std::uint32_t count;
  } open;
};

template <int kDim, int kGroups>
struct Shared {
  union {
    alignas(1024) std::uint8_t q[kGroups][kBlock * kDim * 2];  // until they are in registers
    RowScratch rows[kGroups * 4][kWarpRows];
  };
  KeyRing<kDim, kStages> keys;
};

/// Bits of an integer that a histogram does not tell apart.
constexpr int kFirstShift = 16;
__device__ __forceinline__ int shift_of(int level) { return max(kFirstShift - 7 * level, 0); }

/// The rules, on the number of better blocks (kCounts) or on their mass in units of 2^-31.
template <bool kCounts>
struct Rule {
  SelectRule rule;
  std::uint32_t k;
  float value;

  /// Whether a block of this share is still wanted after the better ones.
  __device__ __forceinline__ bool wants(float share, std::uint32_t better) const {
    if constexpr (kCounts) return better < k;
    const float mass = static_cast<float>(better) * kMassUnit;
    return rule == SelectRule::kTopP ? mass < value : share * (1 - mass) > value;
  }
  /// What a block adds to the better ones of others.
  __device__ __forceinline__ std::uint32_t weight(float share) const {
    return kCounts ? 1u : __float2uint_rn(share * (1 / kMassUnit));
  }
};

/// What the lanes of a quad know of one row.
struct Row {
  float least;            // product
  float factor;           // from products to integers
  float start;            // log2 of the share of a block at kLeast
  float step;             // and of every integer more
  float low;              // integers in [low, high) are open, those from high on are kept
  float high;             //
  std::uint32_t above;    // number or mass of the blocks from high on
  std::uint32_t skipped;  // of the open blocks, where all have one integer: these first ones are not kept

  __device__ __forceinline__ float integer(float product) const {
    return fmaf(product - least, factor, kLeast);
  }
  __device__ __forceinline__ float share(float integer) const {
    return ptx::exp2_approx(fmaf(integer - kLeast, step, start));
  }
  __device__ __forceinline__ Row of_quad(int quad) const {
    const auto get = [quad](auto x) { return __shfl_sync(kAllLanes, x, quad * 4); };
    return {get(least), get(factor), get(start), get(step), get(low), get(high), get(above), get(skipped)};
  }
};

/// Narrows a row to the bin of its cut; all lanes have the row. Returns what the bin holds.
template <bool kCounts>
__device__ __forceinline__ std::uint32_t narrow(Row& row, const Rule<kCounts>& rule,
                                                const RowScratch& scratch, int shift, int lane) {
  // Lane 0 has the four highest bins.
  const uint4 four = reinterpret_cast<const uint4*>(scratch.bins)[31 - lane];
  const std::uint32_t bins[4] = {four.w, four.z, four.y, four.x};
  std::uint32_t better = row.above + sum_before(bins[0] + bins[1] + bins[2] + bins[3], lane);
  std::uint32_t found = 0;
  int kept = 0;  // of this lane's bins
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (kept < i) continue;
    const float edge = row.low + static_cast<float>((kBins - 1 - 4 * lane - i) << shift);
    if (edge >= row.high || rule.wants(row.share(edge), better + bins[i])) {
      ++kept;
      better += bins[i];
    } else {
      found = bins[i];
    }
  }
  const unsigned cut_lanes = __ballot_sync(kAllLanes, kept < 4);
  const int lane_of_cut = cut_lanes == 0 ? 31 : __ffs(static_cast<int>(cut_lanes)) - 1;
  row.above = __shfl_sync(kAllLanes, better, lane_of_cut);
  if (cut_lanes == 0) {  // everything open is wanted
    row.high = row.low;
    return 0;
  }
  const int bin = kBins - 1 - 4 * lane_of_cut - __shfl_sync(kAllLanes, kept, lane_of_cut);
  row.low += static_cast<float>(bin << shift);
  row.high = fminf(row.high, row.low + static_cast<float>(1 << shift));
  return __shfl_sync(kAllLanes, found, lane_of_cut);
}

/// How many of the first blocks of one integer are not wanted; `found`: what they add together.
template <bool kCounts>
__device__ __forceinline__ std::uint32_t skipped_ties(const Row& row, const Rule<kCounts>& rule,
                                                      std::uint32_t found) {
  const float share = row.share(row.low);
  const std::uint32_t weight = rule.weight(share);
  if (weight == 0) return rule.wants(share, row.above) ? 0 : static_cast<std::uint32_t>(kMaxSelectBlocks);
  const std::uint32_t blocks = found / weight;
  std::uint32_t wanted = 0, better = row.above;
#pragma unroll 1
  for (; wanted < blocks && rule.wants(share, better); ++wanted) better += weight;
  return blocks - wanted;
}

/// A warpgroup's passes over its rows.
template <int kDim, bool kCounts>
struct Selection {
  RowTile<kDim, kStages>& tile;
  RowScratch (&scratch)[kWarpRows];  // of this warp
  const Rule<kCounts>& rule;
  MaskWriter& mask;
  bool is_full[2];  // rows that keep every block, and what is no row
  Row rows[2];

  __device__ __forceinline__ RowScratch& scratch_of(int r) const { return scratch[tile.lane / 4 + 8 * r]; }

  /// The first pass.
  __device__ __forceinline__ void find_range() {
    const float scale = product_scale<kDim>();
    RowStats stats;
    float least[2] = {INFINITY, INFINITY};
    tile.for_tiles(true, [&](int, const float(&s)[32]) {
      if constexpr (kCounts) {
#pragma unroll
        for (int i = 0; i < 32; ++i) stats.top[i % 4 / 2] = fmaxf(stats.top[i % 4 / 2], s[i]);
      } else {
        stats.add(s, scale);
      }
#pragma unroll
      for (int i = 0; i < 32; ++i)
        least[i % 4 / 2] = fminf(least[i % 4 / 2], s[i] == -INFINITY ? INFINITY : s[i]);
    });
    stats.join(scale);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      least[r] = fminf(least[r], __shfl_xor_sync(kAllLanes, least[r], 1));
      least[r] = fminf(least[r], __shfl_xor_sync(kAllLanes, least[r], 2));
      const float range = stats.top[r] - least[r];
      Row& row = rows[r];
      row.least = least[r];
      row.factor = range > 1e-30f ? (kMost - kLeast) / range : 0.0f;
      row.step = range * (scale / (kMost - kLeast));
      row.start = -range * scale - log2f(stats.sum[r]);
      row.low = is_full[r] ? 0x1p24f : 0x1p23f;
      row.high = 0x1p24f;
      row.above = row.skipped = 0;
      // Only blocks whose share exceeds the value can be worth it by kResidual.
      if (!kCounts && rule.rule == SelectRule::kResidual && row.step > 0) {
        const float least_worth = kLeast + floorf((log2f(rule.value) - row.start) / row.step) - 2;
        row.low = fminf(fmaxf(row.low, least_worth), 0x1p24f - 1);
      }
      if (is_full[r]) row.low = row.high;
    }
  }

  /// Narrows the rows. Returns whether the last pass could not take what is open in one of them.
  __device__ __forceinline__ bool count_bins(int shift) {
    __syncwarp();
#pragma unroll 4
    for (int i = tile.lane; i < kWarpRows * kBins / 4; i += 32)
      reinterpret_cast<uint4*>(scratch)[i] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    tile.for_tiles(true, [&](int, const float(&s)[32]) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = i % 4 / 2;
        const float t = rows[r].integer(s[i]);
        if (t >= rows[r].low && t < rows[r].high) {
          const int bin = (__float_as_int(t) - __float_as_int(rows[r].low)) >> shift;
          atomicAdd(&scratch_of(r).bins[bin], kCounts ? 1u : rule.weight(rows[r].share(t)));
        }
      }
    });
    __syncwarp();
    // Where the number in a bin is not known: two histograms leave few blocks even of long rows.
    bool more = !kCounts && shift == kFirstShift && tile.own_tiles > 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll 1
      for (int quad = 0; quad < 8; ++quad) {
        Row row = rows[r].of_quad(quad);
        const std::uint32_t found = narrow(row, rule, scratch[quad + 8 * r], shift, tile.lane);
        if (shift == 0) row.skipped = skipped_ties(row, rule, found);
        if (tile.lane / 4 != quad || is_full[r]) continue;
        rows[r] = row;
        more |= kCounts && found > kMostCandidates;
      }
    }
    return more && shift > 0;
  }

  /// Writes the mask from `high` on and collects what is open. Returns whether that was too much of a row.
  __device__ __forceinline__ bool select(int shift) {
    __syncwarp();
    if (tile.lane < kWarpRows) scratch[tile.lane].open.count = 0;
    __syncwarp();
    mask.count = 0;
    std::uint32_t skipped = tile.lane % 2 == 0 ? rows[0].skipped : rows[1].skipped;  // of the writer's row
    tile.for_tiles(true, [&](int t, const float(&s)[32]) {
      std::uint32_t bits[2][2] = {}, ties[2][2] = {};
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = i % 4 / 2;
        const float x = rows[r].integer(s[i]);
        const std::uint32_t bit = 1u << (i / 4 % 4 * 8 + i % 2);
        if (is_full[r] || x >= rows[r].high) {
          bits[r][i / 16] |= bit;
        } else if (x >= rows[r].low) {
          if (shift > 0)
            collect(r, x, t * kBlock + i / 4 * 8 + tile.lane % 4 * 2 + i % 2);
          else
            ties[r][i / 16] |= bit;
        }
      }
      std::uint64_t word = mask.join(t, bits);
      if (shift == 0) {
        std::uint64_t tied = mask.join(t, ties);
#pragma unroll 1
        for (; skipped > 0 && tied != 0; --skipped) tied &= tied - 1;
        word |= tied;
      }
      mask.write(t, word);
    });
    __syncwarp();
    return shift > 0 && tile.lane < kWarpRows && scratch[tile.lane].open.count > kMostCandidates;
  }

  __device__ __forceinline__ void collect(int r, float integer, int column) const {
    auto& open = scratch_of(r).open;
    const std::uint32_t at = atomicAdd(&open.count, 1u);
    if (at < kMostCandidates) {
      const int offset = __float_as_int(integer) - __float_as_int(rows[r].low);  // below 2^16
      open.keys[at] = static_cast<std::uint32_t>(offset << kColumnBits | column);
    }
  }

  /// Adds the collected blocks that are wanted: the best first, of equals the later ones.
  __device__ __forceinline__ void add_collected() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll 1
      for (int quad = 0; quad < 8; ++quad) {
        const Row row = rows[r].of_quad(quad);
        const auto& open = scratch[quad + 8 * r].open;
        const int count = static_cast<int>(open.count);
        const std::uint32_t key = sort_lanes(tile.lane < count ? open.keys[tile.lane] : 0, tile.lane);
        const float share = row.share(row.low + static_cast<float>(key >> kColumnBits));
        const std::uint32_t weight = tile.lane < count ? rule.weight(share) : 0;
        const std::uint32_t better = row.above + sum_before(weight, tile.lane);
        const unsigned wanted = __ballot_sync(kAllLanes, tile.lane < count && rule.wants(share, better));
        const int kept = wanted == kAllLanes ? 32 : __ffs(static_cast<int>(~wanted)) - 1;
        if (tile.lane < kept) {
          const int column = static_cast<int>(key & ((1u << kColumnBits) - 1));
          auto* words =
              reinterpret_cast<std::uint32_t*>(mask.words(tile.first + tile.warp * 16 + quad + 8 * r));
          atomicOr(words + column / 32, 1u << (column % 32));
        }
        if (tile.lane == quad * 4 + r) mask.count += kept;
      }
    }
  }
};

enum class Pass { kRange, kHistogram, kSelect };

template <int kDim, int kGroups, bool kCounts>
__global__ void __launch_bounds__(128 * kGroups + 32, kGroups == 1 ? 2 : 1)
    gate_cut_kernel(const __grid_constant__ GateSelectMaps maps, GateSelectParams p, Rule<kCounts> rule,
                    std::int64_t dense_from) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDim, kGroups>*>(memory);
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const CtaRows<kGroups> cta(p);
  if (threadIdx.x == 0) init_barriers(shared.keys, 4 * kGroups);
  __syncthreads();
  ptx::wait_for_previous_kernel();

  // The next pass, and which histogram it is or comes after, once all threads have done theirs.
  Pass pass = Pass::kRange;
  int level = 0;
  const auto next = [&](bool more) {
    more = __syncthreads_or(more) != 0;
    if (pass == Pass::kSelect && !more) return false;
    if (more) ++level;
    pass = pass == Pass::kHistogram && !more ? Pass::kSelect : Pass::kHistogram;
    return true;
  };

  if (warp == 4 * kGroups) {
    KeyFetcher<kDim, kStages> fetcher{maps, shared.keys, cta.head / (p.heads / p.k_heads), cta.key_tiles};
    if (lane == 0) fetcher.fetch_queries(shared.q, cta);
    do {
      if (lane == 0) fetcher.fetch_keys();
      __syncwarp();
    } while (next(false));
    return;
  }

  RowTile<kDim, kStages> tile(shared.keys, cta, warp, lane);
  tile.load_queries(shared.q[warp / 4]);
  MaskWriter mask(p, cta.head, tile);
  const auto is_full = [&](int row) {
    return !tile.is_own(row) || row >= dense_from || (kCounts && rule.k > static_cast<std::uint32_t>(row));
  };
  Selection<kDim, kCounts> selection{
      tile, shared.rows[warp], rule, mask, {is_full(tile.row(0)), is_full(tile.row(1))}};
  bool more;
  do {
    more = false;
    if (pass == Pass::kRange) {
      selection.find_range();
    } else if (pass == Pass::kHistogram) {
      more = selection.count_bins(shift_of(level));
    } else {
      more = selection.select(shift_of(level));
    }
  } while (next(more));
  if (shift_of(level) > 0) selection.add_collected();
  mask.fill_empty();
  mask.finish(tile, p.selected_blocks);
}

template <int kDim, int kGroups, bool kCounts>
void launch(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  const RowRule rule = row_rule(p.select);
  launch_early("gate_select", gate_cut_kernel<kDim, kGroups, kCounts>,
               dim3(static_cast<unsigned>(ctas_for<kGroups>(p))), 128 * kGroups + 32,
               static_cast<int>(sizeof(Shared<kDim, kGroups>)), stream, maps, p,
               Rule<kCounts>{rule.rule, static_cast<std::uint32_t>(rule.k), static_cast<float>(rule.value)},
               rule.dense_from);
}

}  // namespace

/// Three row tiles a CTA read the keys a third as often, where that leaves CTAs enough.
template <int kDim>
void launch_gate_cut(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  const bool counts = p.select.rule == SelectRule::kNzRatio;
  if (ctas_for<3>(p) >= 128)
    (counts ? launch<kDim, 3, true> : launch<kDim, 3, false>)(maps, p, stream);
  else
    (counts ? launch<kDim, 1, true> : launch<kDim, 1, false>)(maps, p, stream);
}

template void launch_gate_cut<64>(const GateSelectMaps&, const GateSelectParams&, CUstream_st*);
template void launch_gate_cut<128>(const GateSelectMaps&, const GateSelectParams&, CUstream_st*);

}  // namespace seer::cuda
