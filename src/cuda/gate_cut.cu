// The best blocks of a row up to a cut: rules kNzRatio, kTopP and kResidual.
//
// Whether the next block of a given score is wanted depends on the number or mass of the better ones alone
// and falls with the score. So scores become integers of 23 bits between a row's least and largest, and the
// cut is found as digits are: a histogram of what is open, 128 bins of numbers or of mass, narrows the cut to
// one bin. When a bin holds at most 32 blocks, the last pass writes the bits of what lies above it and
// collects what lies in it, of which those are added that are wanted after the better ones. Every pass
// multiplies rows and keys again (gate_rows.cuh); three suffice as a rule. Where even one integer holds more
// than 32 blocks, they are ties, and the last pass goes by their columns alone. What a row needs lies in its
// warp's shared memory and registers; the four lanes of a quad work on their own rows.
#include "cuda/gate_rows.cuh"

namespace seer::cuda {
namespace {

constexpr int kBins = 128;
constexpr int kWarpRows = 16;
constexpr int kMostCandidates = 32;
/// Integers of scores are floats in [2^23, 2^24), where neighbours differ by one, as their bits do.
constexpr float kLeast = 0x1p23f, kEnd = 0x1p24f;
constexpr float kMassUnit = 0x1p-31f;
constexpr int kColumnBits = 12;
static_assert(1 << kColumnBits == kMaxSelectBlocks);

/// One row's histogram, later the blocks of the open bin.
union RowScratch {
  std::uint32_t bins[kBins + 4];  // one a lane for what is not open, which keeps rows off each other's banks
  struct {
    std::uint32_t keys[kMostCandidates];  // integer - low, column
    std::uint32_t weights[kMostCandidates];
    std::uint32_t count;
  } open;
};

enum class Pass { kRange, kHistogram, kSelect };

/// How a CTA's warps agree on the passes over its rows, which go together, for the keys pass once for all:
/// the range, histograms as long as a row has more open than the last pass takes, the last pass, and again if
/// it found more. Those who work vote, those who only fetch look on: all meet at a barrier in shared memory,
/// for the two roles are at different instructions.
struct Votes {
  std::uint64_t cast;  // by every voting warp
  int more[3];         // zeros; a word is cleared a turn after all have read it

  /// One thread, before all begin.
  __device__ __forceinline__ void init(int voting_warps) {
    ptx::mbarrier_init(ptx::shared_address(&cast), static_cast<std::uint32_t>(voting_warps));
    ptx::fence_mbarrier_init();
    more[0] = more[1] = more[2] = 0;
  }

  /// run(pass): the pass; of those who vote, whether a row of theirs has more.
  template <bool kVotes, class Run>
  __device__ __forceinline__ void for_passes(const Run& run) {
    const std::uint32_t barrier = ptx::shared_address(&cast);
    Pass pass = Pass::kRange;
    int turn = 0;
    std::uint32_t parity = 0;
#pragma unroll 1
    for (;;) {
      const bool has_more = run(pass);
      const int next = turn == 2 ? 0 : turn + 1;
      if constexpr (kVotes) {
        const bool warp_has_more = __any_sync(kAllLanes, has_more);
        if (threadIdx.x % 32 == 0) {
          if (warp_has_more) more[turn] = 1;
          if (threadIdx.x == 0) more[next] = 0;
          ptx::mbarrier_arrive(barrier);
        }
      }
      ptx::mbarrier_wait(barrier, parity);
      if constexpr (kVotes) __syncwarp();
      const bool again = more[turn] != 0;
      if (pass == Pass::kSelect && !again) return;
      pass = pass == Pass::kHistogram && !again ? Pass::kSelect : Pass::kHistogram;
      turn = next;
      parity ^= 1;
    }
  }
};

template <int kDim, int kGroups>
struct Shared {
  static constexpr int kStages = kGroups == 1 ? 4 : 5;
  static constexpr int kThreads = 128 * (kGroups + 1);  // a warpgroup gives its registers to the others
  static constexpr int kFetchRegisters = 40;
  static constexpr int kSelectRegisters = kGroups == 1 ? 208 : 152;
  union {
    alignas(1024) std::uint8_t q[kGroups][KeyRing<kDim, kStages>::kTileBytes];  // until they are in registers
    RowScratch rows[kGroups * 4][kWarpRows];
  };
  KeyRing<kDim, kStages> keys;
  Votes votes;
};

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
  float factor, offset;  // from products to integers
  float top;             // the largest integer
  float step;            // log2 of the share falls by this with every integer
  float top_share;       // log2 of the share of `top`
  float low, high;       // integers in [low, high) are open, those from high on are kept
  /// Number or mass of the blocks from high on; where one integer is open, how many of its first blocks are
  /// not kept.
  std::uint32_t above;

  __device__ __forceinline__ float integer(float product) const { return fmaf(product, factor, offset); }
  __device__ __forceinline__ float share(float integer) const {
    return ptx::exp2_approx(fmaf(integer - top, step, top_share));
  }
  __device__ __forceinline__ int width() const { return __float_as_int(high) - __float_as_int(low); }
  /// So that kBins bins of 2^shift integers hold all that are open.
  __device__ __forceinline__ int shift() const { return max(25 - __clz(max(width(), 1) - 1), 0); }
};

/// The part of a quad's bins in which its cut lies.
struct BinRange {
  int end = kBins;          // the cut is before this one
  std::uint32_t better;     // number or mass of what lies in `end` and above
  std::uint32_t found = 0;  // and in the range
  bool has_cut = true;

  /// Each lane of the quad takes kSize bins before `end`, the first lane the highest.
  template <int kSize, bool kCounts>
  __device__ __forceinline__ void narrow(const Row& row, const Rule<kCounts>& rule, const RowScratch& scratch,
                                         int shift, int lane) {
    const int t = lane % 4, begin = max(end - kSize * (t + 1), 0);
    std::uint32_t sum = 0;
    if constexpr (kSize >= 4) {
      const auto* fours = reinterpret_cast<const uint4*>(scratch.bins + begin);
#pragma unroll
      for (int i = 0; i < kSize / 4; ++i) {
        const uint4 four = fours[(i + 2 * t) % (kSize / 4)];  // other banks than the quad's other lanes
        sum += four.x + four.y + four.z + four.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum += scratch.bins[begin + i];
    }
    std::uint32_t through = sum;  // what lies in `begin` and above
    const std::uint32_t one = __shfl_up_sync(kAllLanes, through, 1, 4);
    if (t >= 1) through += one;
    const std::uint32_t two = __shfl_up_sync(kAllLanes, through, 2, 4);
    if (t >= 2) through += two;
    through += better;
    const float edge = row.low + static_cast<float>(begin << shift);
    const bool wanted = edge >= row.high || rule.wants(row.share(edge), through);
    const unsigned unwanted = ~__ballot_sync(kAllLanes, wanted) >> (lane & ~3) & 0xf;
    has_cut = has_cut && unwanted != 0;
    const int cut = unwanted == 0 ? 3 : __ffs(static_cast<int>(unwanted)) - 1;
    found = __shfl_sync(kAllLanes, sum, cut, 4);
    better = __shfl_sync(kAllLanes, through, cut, 4) - found;
    end = max(end - kSize * cut, 1);
  }
};

/// Narrows the quad's row to the bin of its cut. Returns how many blocks it holds, at most.
template <bool kCounts>
__device__ __forceinline__ std::uint32_t narrow(Row& row, const Rule<kCounts>& rule,
                                                const RowScratch& scratch, int lane) {
  const int shift = row.shift();
  BinRange range{.better = row.above};
  range.narrow<32>(row, rule, scratch, shift, lane);
  const std::uint32_t all = range.better + range.found;
  range.narrow<8>(row, rule, scratch, shift, lane);
  range.narrow<2>(row, rule, scratch, shift, lane);
  range.narrow<1>(row, rule, scratch, shift, lane);
  if (!range.has_cut) {  // everything open is wanted
    row.above = all;
    row.high = row.low;
    if (!kCounts || row.low == kLeast) return 0;
    row.low = kLeast;  // the guess where to begin was too high
    return kMaxSelectBlocks;
  }
  row.above = range.better;
  row.low += static_cast<float>((range.end - 1) << shift);
  row.high = fminf(row.high, row.low + static_cast<float>(1 << shift));
  const float share = row.share(row.low);
  const std::uint32_t weight = rule.weight(share);
  const std::uint32_t blocks = kCounts ? range.found : weight == 0 ? 0 : range.found / weight;
  if (row.width() > 1) return blocks;
  // Ties: all have the same share.
  std::uint32_t wanted = 0, better = row.above;
  if (weight == 0) {
    row.above = rule.wants(share, better) ? 0 : kMaxSelectBlocks;
    return blocks;
  }
#pragma unroll 1
  for (; wanted < blocks && rule.wants(share, better); ++wanted) better += weight;
  row.above = blocks - wanted;
  return blocks;
}

/// What a standard normal variable exceeds with this probability, below one half; Abramowitz and
/// Stegun, 26.2.22.
__device__ __forceinline__ float normal_quantile(float probability) {
  const float t = sqrtf(-2 * logf(probability));
  return t - (2.30753f + 0.27061f * t) / (1 + t * (0.99229f + 0.04481f * t));
}

/// x[i] for an i that is not known before. In assembly, for the compiler would move x to memory.
template <int kCount>
__device__ __forceinline__ float pick(const float* x, int i) {
  if constexpr (kCount == 1) {
    return x[0];
  } else {
    const float low = pick<kCount / 2>(x, i), high = pick<kCount / 2>(x + kCount / 2, i);
    float picked;
    asm("{.reg .pred p;\n"
        "setp.ne.s32 p, %3, 0;\n"
        "selp.f32 %0, %1, %2, p;}"
        : "=f"(picked)
        : "f"(high), "f"(low), "r"(i & (kCount / 2)));
    return picked;
  }
}

/// Bit i for s[i] to the bits that MaskWriter joins.
__device__ __forceinline__ void spread(std::uint32_t flat, std::uint32_t (&bits)[2][2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t x = flat >> (16 * half + 2 * r) & 0x3333;  // two bits a nibble, to two a byte
      x = (x | x << 8) & 0x00ff00ff;
      bits[r][half] = (x | x << 4) & 0x0f0f0f0f;
    }
  }
}

/// A warpgroup's passes over its rows.
template <int kDim, int kStages, bool kCounts>
struct Selection {
  RowTile<kDim, kStages>& tile;
  RowScratch (&scratch)[kWarpRows];  // of this warp
  const Rule<kCounts>& rule;
  const GateSelectParams& p;
  const int head;
  int count = 0;  // of the blocks that this lane has written
  Row rows[2];

  __device__ __forceinline__ RowScratch& scratch_of(int r, int lane) const {
    return scratch[lane / 4 + 8 * r];
  }

  /// The first pass. is_full(row): keeps every block.
  template <class IsFull>
  __device__ __forceinline__ void find_range(const IsFull& is_full) {
    const float scale = product_scale<kDim>();
    RowStats stats;
    float least[2] = {INFINITY, INFINITY}, sum[2] = {}, squares[2] = {};
    tile.template for_tiles<true>([&](int t, float(&s)[32]) {
      const bool crosses = tile.crosses(t);
      tile.hide(t, s);
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = i % 4 / 2;
        least[r] = fminf(least[r], !crosses || s[i] > -INFINITY ? s[i] : INFINITY);
        if constexpr (kCounts) stats.top[r] = fmaxf(stats.top[r], s[i]);
      }
      if (kCounts && !crosses) {
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          const int r = i % 4 / 2;
          sum[r] += s[i];
          squares[r] = fmaf(s[i], s[i], squares[r]);
        }
      }
      if constexpr (!kCounts) stats.add(s, scale);
    });
    stats.join(scale);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const auto join = [](float x, auto op) {
        x = op(x, __shfl_xor_sync(kAllLanes, x, 1));
        return op(x, __shfl_xor_sync(kAllLanes, x, 2));
      };
      const auto plus = [](float a, float b) { return a + b; };
      least[r] = join(least[r], [](float a, float b) { return fminf(a, b); });
      if constexpr (kCounts) sum[r] = join(sum[r], plus), squares[r] = join(squares[r], plus);
      Row& row = rows[r];
      const float range = stats.top[r] - least[r];
      // Room for the rounding of the offset, which grows with the numbers' size beside their range.
      const float room = 16 + fminf(2 * fmaxf(fabsf(least[r]), fabsf(stats.top[r])) / range, 0x1p21f);
      const float factor = range > 1e-30f ? (kEnd - kLeast - 2 * room) / range : 0.0f;
      row.factor = factor;
      row.offset = fmaf(-least[r], factor, kLeast + (range > 1e-30f ? room : 0.0f));
      row.top = row.integer(stats.top[r]);
      row.step = factor > 0 ? scale / factor : 0.0f;
      row.top_share = -log2f(stats.sum[r]);
      row.above = 0;
      row.low = row.high = -INFINITY;
      if (is_full(tile.row(r))) continue;
      row.high = kEnd;
      float low = kLeast;
      if constexpr (kCounts) {
        // The cut of a normal distribution, lowered: what lies below need not be counted, if that holds.
        const auto seen = static_cast<float>((tile.first + 1) / kBlock * kBlock);
        const float mean = sum[r] / seen;
        const float deviation = sqrtf(fmaxf(squares[r] / seen - mean * mean, 0.0f));
        const float share = (1.5f * static_cast<float>(rule.k) + 12) / static_cast<float>(tile.row(r) + 1);
        if (seen > 0 && share < 0.5f) low = row.integer(mean + deviation * normal_quantile(share));
      } else if (rule.rule == SelectRule::kResidual && row.step > 0) {
        // Only blocks whose share exceeds the value can be worth it.
        low = row.top + (log2f(rule.value) - row.top_share) / row.step - 2;
      }
      row.low = fminf(fmaxf(floorf(low), kLeast), kEnd - 1);
    }
  }

  /// Narrows the rows. Returns whether one of them has more open than the last pass takes.
  __device__ __forceinline__ bool count_bins() {
    const int lane = tile.lane;
    __syncwarp();
    auto* words = reinterpret_cast<uint4*>(scratch);
#pragma unroll 2
    for (int i = lane; i < static_cast<int>(sizeof(scratch) / sizeof(uint4)); i += 32)
      words[i] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    int shift[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) shift[r] = rows[r].shift();
    tile.template for_tiles<true>([&](int t, float(&s)[32]) {
      tile.hide(t, s);
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = i % 4 / 2;
        const float x = rows[r].integer(s[i]);
        // Also what is no integer lies outside, and goes to a word after the bins: a branch would cost more.
        const auto offset = static_cast<std::uint32_t>(__float_as_int(x) - __float_as_int(rows[r].low));
        const bool is_open = offset < static_cast<std::uint32_t>(rows[r].width());
        const std::uint32_t bin = is_open ? offset >> shift[r] : kBins + lane % 4;
        atomicAdd(&scratch_of(r, lane).bins[bin], kCounts ? 1u : rule.weight(rows[r].share(x)));
      }
    });
    __syncwarp();
    bool more = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool is_open = rows[r].width() > 1;
      Row row = rows[r];
      const std::uint32_t found = narrow(row, rule, scratch_of(r, lane), lane);
      if (!is_open) continue;
      rows[r] = row;
      more = more || (found > kMostCandidates && row.width() > 1);
    }
    return more;
  }

  /// Writes the mask from `high` on and collects what is open. Returns whether that was too much of a row.
  __device__ __forceinline__ bool select() {
    const int lane = tile.lane;
    __syncwarp();
    if (lane < kWarpRows) scratch[lane].open.count = 0;
    __syncwarp();
    MaskWriter mask(p, head, tile);
    std::uint32_t tied_rows = 0;
#pragma unroll
    for (int r = 0; r < 2; ++r)
      if (rows[r].width() == 1) tied_rows |= r == 0 ? 0x33333333 : 0xcccccccc;
    const bool some_tied = __any_sync(kAllLanes, tied_rows != 0);
    std::uint32_t skipped = lane % 2 == 0 ? rows[0].above : rows[1].above;  // of the writer's row
    tile.template for_tiles<true>([&](int t, float(&s)[32]) {
      tile.hide(t, s);
      std::uint32_t kept = 0, open = 0;  // bit i for s[i]
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const Row& row = rows[i % 4 / 2];
        s[i] = row.integer(s[i]);
        if (s[i] >= row.high) kept |= 1u << i;
        if (s[i] >= row.low) open |= 1u << i;
      }
      open &= ~kept;
      std::uint32_t bits[2][2];
      spread(kept, bits);
      std::uint64_t word = mask.join(t, bits);
      if (some_tied) {
        spread(open & tied_rows, bits);
        std::uint64_t tied = mask.join(t, bits);
#pragma unroll 1
        for (; skipped > 0 && tied != 0; --skipped) tied &= tied - 1;
        word |= tied;
      }
      mask.write(t, word);
#pragma unroll 1
      for (open &= ~tied_rows; open != 0; open &= open - 1) {
        const int i = __ffs(static_cast<int>(open)) - 1;
        collect(i % 4 / 2, pick<32>(s, i), t * kBlock + i / 4 * 8 + lane % 4 * 2 + i % 2, lane);
      }
    });
    count = mask.count;
    __syncwarp();
    return lane < kWarpRows && scratch[lane].open.count > kMostCandidates;
  }

  __device__ __forceinline__ void collect(int r, float integer, int column, int lane) const {
    auto& open = scratch_of(r, lane).open;
    const std::uint32_t at = atomicAdd(&open.count, 1u);
    if (at >= kMostCandidates) return;
    const float low = r == 0 ? rows[0].low : rows[1].low;
    const int offset = __float_as_int(integer) - __float_as_int(low);  // below 2^16
    open.keys[at] = static_cast<std::uint32_t>(offset << kColumnBits | column);
    open.weights[at] = rule.weight(r == 0 ? rows[0].share(integer) : rows[1].share(integer));
  }

  /// Adds the collected blocks that are wanted; of equals the later ones are better. Ends the mask.
  __device__ __forceinline__ void finish() {
    const int lane = tile.lane;
    MaskWriter mask(p, head, tile);
    int added[2] = {0, 0};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Row& row = rows[r];
      const auto& open = scratch_of(r, lane).open;
      const auto collected = static_cast<int>(open.count);
      auto* words = reinterpret_cast<std::uint32_t*>(mask.words(tile.row(r)));
#pragma unroll 1
      for (int i = lane % 4; i < collected; i += 4) {
        const std::uint32_t key = open.keys[i];
        std::uint32_t better = row.above;
#pragma unroll 2
        for (int j = 0; j < collected; ++j) better += open.keys[j] > key ? open.weights[j] : 0;
        if (!rule.wants(row.share(row.low + static_cast<float>(key >> kColumnBits)), better)) continue;
        const auto column = key & ((1u << kColumnBits) - 1);
        atomicOr(words + column / 32, 1u << (column % 32));
        ++added[r];
      }
      added[r] += __shfl_xor_sync(kAllLanes, added[r], 1);
      added[r] += __shfl_xor_sync(kAllLanes, added[r], 2);
    }
    mask.count = mask.writes ? count + (lane % 2 == 0 ? added[0] : added[1]) : 0;
    mask.fill_empty();
    mask.finish(tile);
  }
};

template <int kDim, int kGroups, bool kCounts>
__global__ void __launch_bounds__(Shared<kDim, kGroups>::kThreads, kGroups == 1 ? 2 : 1)
    gate_cut_kernel(const __grid_constant__ GateSelectMaps maps, GateSelectParams p, Rule<kCounts> rule,
                    std::int64_t dense_from) {
  using Memory = Shared<kDim, kGroups>;
  constexpr int kStages = Memory::kStages;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<Memory*>(memory);
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const CtaRows<kGroups> cta(p);
  if (threadIdx.x == 0) {
    init_barriers(shared.keys, 4 * kGroups);
    shared.votes.init(4 * kGroups);
  }
  __syncthreads();
  ptx::wait_for_previous_kernel();

  if (warp >= 4 * kGroups) {
    ptx::give_registers<Memory::kFetchRegisters>();
    if (threadIdx.x != 128 * kGroups) return;
    KeyFetcher<kDim, kStages> fetcher{maps, shared.keys, cta.head / (p.heads / p.k_heads), cta.key_tiles};
    fetcher.fetch_queries(shared.q, cta);
    shared.votes.template for_passes<false>([&](Pass) {
      fetcher.fetch_keys();
      return false;
    });
    return;
  }

  ptx::take_registers<Memory::kSelectRegisters>();
  RowTile<kDim, kStages> tile(shared.keys, shared.q, cta, warp, lane);
  const auto is_full = [&](int row) {
    return !tile.is_own(row) || row >= dense_from || (kCounts && rule.k > static_cast<std::uint32_t>(row));
  };
  Selection<kDim, kStages, kCounts> selection{tile, shared.rows[warp], rule, p, cta.head};
  shared.votes.template for_passes<true>([&](Pass pass) {
    if (pass == Pass::kHistogram) return selection.count_bins();
    if (pass == Pass::kSelect) return selection.select();
    selection.find_range(is_full);
    return false;
  });
  selection.finish();
}

template <int kDim, int kGroups, bool kCounts>
void launch(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  const RowRule rule = row_rule(p.select);
  launch_early("gate_select", gate_cut_kernel<kDim, kGroups, kCounts>,
               dim3(static_cast<unsigned>(ctas_for<kGroups>(p))), Shared<kDim, kGroups>::kThreads,
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
