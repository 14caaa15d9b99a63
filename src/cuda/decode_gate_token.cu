// One token's blocks, chosen by a cluster of CTAs for each (sequence, KV head).
//
// Each CTA has its first weights and compressed keys on their way before it waits for the kernel ahead. Then
// it multiplies its share of the query's inputs and sends the sums to all others, so that each has the whole
// query; and scores its share of the keys into the shared memory of the first CTA, which selects. The last
// one, whose share of the keys holds the newest, also keeps the token's key and compresses the block that it
// fills.
//
// What is sent counts down a barrier of the receiver: a barrier of the whole cluster that orders memory costs
// each CTA a fence of all its accesses.
//
// The query's inputs are summed in kSlices slices, whose sums are added in their order: the bits do not
// depend on the number of CTAs, hence not on the batch.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/decode_gate.cuh"
#include "cuda/decode_gate_launch.h"
#include "cuda/decode_gate_select.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

namespace seer::cuda {
namespace {

using namespace decode_gate_cta;

constexpr int kSlices = 8;
constexpr int kMostGroup = 16;  // query heads of a KV head
constexpr int kTerms = 3;       // bf16 terms of a float32
constexpr int kMine = kMaxSelectBlocks / kThreads;

struct TokenArguments {
  BlockRule rule;
  int group;   // query heads of a KV head
  int slices;  // of each CTA
};

/// Rows of weights of a thread, read ahead of their use.
struct WeightRows {
  static constexpr int kRows = 4;
  uint4 row[kRows];

  /// Of rows [first, end) the thread's next ones. weights: its column of row 0.
  __device__ __forceinline__ void load(const Weight* weights, const Tiling& tiling, int dim, int first,
                                       int end) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int r = tiling.row + i * tiling.rows_on;
      if (tiling.has_row(r, end - first))
        row[i] = __ldg(reinterpret_cast<const uint4*>(weights + static_cast<std::int64_t>(first + r) * dim));
    }
  }
  /// x: of row `first`.
  __device__ __forceinline__ void add_to(float (&sum)[8], const float* x, const Tiling& tiling, int first,
                                         int end) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int r = tiling.row + i * tiling.rows_on;
      add_row(sum, tiling.has_row(r, end - first) ? x[r] : 0.0f, row[i]);
    }
  }
};

/// Keys of one round, as the first operand of 16-row products by a warp: a lane holds of rows lane / 4 and
/// lane / 4 + 8 the pieces of 8 channels lane % 4, lane % 4 + 4, ...
template <int kPieces>
struct KeyTile {
  static constexpr int kTiles = 8 / kPieces;  // of 16 rows, of each warp
  static constexpr int kRows = 16 * kWarps * kTiles;
  uint4 piece[kTiles][2][kPieces];

  /// The warp's first row of a tile.
  __device__ static int row(int tile) { return 16 * (tile * kWarps + static_cast<int>(threadIdx.x) / 32); }
  /// Of the rows from `first` on those in [begin, end); the others keep what they hold.
  __device__ __forceinline__ void load(const __nv_bfloat16* keys, int dim, int first, int begin, int end) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = first + row(tile) + half * 8 + lane / 4;
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          const int channel = (i * 4 + lane % 4) * 8;
          // Not through L1, which may hold the sector from before a key in it was made.
          if (key >= begin && key < end && channel < dim)
            piece[tile][half][i] =
                __ldcg(reinterpret_cast<const uint4*>(keys + static_cast<std::int64_t>(key) * dim + channel));
        }
      }
    }
  }
};

template <int kHeadDim, int kPieces>
struct TokenShared {
  static constexpr int kDims = 32 * kPieces;
  static_assert(kMostGroup <= kWarps * kPools);  // so that x ends before scratch.joint
  union {
    Scratch<kHeadDim> scratch;
    float x[kMostGroup * kHeadDim];  // query heads, the CTA's first one first
    float scores[kMaxSelectBlocks];  // of the first CTA, once the cluster has the query
  };
  float parts[kSlices][kDims];              // of the query, from the whole cluster
  float y[kDims];                           // their sum
  alignas(16) Weight query[kTerms][kDims];  // after RoPE, times the scores' scale
  SelectShared<kMine> select;
  std::uint64_t parts_full, scores_full;  // barriers
};

/// Of a float32 the terms whose sum it is.
__device__ __forceinline__ void split(float value, Weight (&terms)[kTerms]) {
#pragma unroll
  for (Weight& term : terms) {
    term = static_cast<Weight>(value);
    value -= static_cast<float>(term);
  }
}

/// The warp's scores of a tile whose first row is `row`, those below `end`, to scores[row...] of the first
/// CTA.
template <int kPieces>
__device__ __forceinline__ void score_tile(const uint4 (&piece)[2][kPieces],
                                           const Weight (&query)[kTerms][32 * kPieces], int dim, int row,
                                           int end, std::uint32_t scores, std::uint32_t barrier) {
  const int lane = threadIdx.x % 32;
  float even[4] = {}, odd[4] = {};
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int channel = (i * 4 + lane % 4) * 8;
    uint4 q{};
    if (lane / 4 < kTerms && channel < dim) q = *reinterpret_cast<const uint4*>(&query[lane / 4][channel]);
    const uint4 &upper = piece[0][i], &lower = piece[1][i];
    ptx::mma<__nv_bfloat16>(even, {upper.x, lower.x, upper.y, lower.y}, q.x, q.y);
    ptx::mma<__nv_bfloat16>(odd, {upper.z, lower.z, upper.w, lower.w}, q.z, q.w);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = (even[2 * half] + odd[2 * half]) + (even[2 * half + 1] + odd[2 * half + 1]);
    sum += __shfl_xor_sync(kAllLanes, sum, 1);  // terms 0 and 1, and term 2
    const int r = row + half * 8 + lane / 4;
    if (lane % 4 == 0 && r < end) ptx::store_async(scores + 4 * r, sum, barrier);
  }
}

/// kPieces: 16-byte pieces of a key of a lane, 4 for a gate size up to 128, 8 up to 256. Cluster and grid
/// [CTAs of a list, num_kv_heads, batch].
template <class T, int kHeadDim, int kPieces>
__global__ void __launch_bounds__(kThreads, 8 / kPieces)
    token_kernel(DecodeGateTokenParams p, TokenArguments arg) {
  using Tile = KeyTile<kPieces>;
  using Shared = TokenShared<kHeadDim, kPieces>;
  __shared__ Shared shared;
  ptx::let_next_kernel_start();
  const DecodeGateLayerParams& gate = p.gate;
  const int rank = blockIdx.x, ctas = gridDim.x, kv_head = blockIdx.y, b = blockIdx.z;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  const int rows = arg.group * kHeadDim, slice_rows = rows / kSlices;
  const int first_row = rank * arg.slices * slice_rows, end_row = first_row + arg.slices * slice_rows;
  const Tiling tiling(gate.dim);
  const Weight* const weights = static_cast<const Weight*>(gate.q_weight) +
                                static_cast<std::int64_t>(kv_head) * rows * gate.dim + tiling.column;
  WeightRows weight_rows{};
  weight_rows.load(weights, tiling, gate.dim, first_row, first_row + slice_rows);

  const int position = p.positions[b];
  const DecodeGateSequence sequence = p.sequences[b];
  const int full = (position + 1) / kBlock, blocks = position / kBlock + 1;
  const std::int64_t list = static_cast<std::int64_t>(b) * gate.num_kv_heads + kv_head;
  std::uint32_t* const mask = reinterpret_cast<std::uint32_t*>(p.mask + list * p.mask_words);
  const int words = static_cast<int>(2 * p.mask_words);
  if (arg.rule.budget >= blocks) {
    ptx::wait_for_previous_kernel();
    if (rank == ctas - 1) take_key<T, kHeadDim>(p, kv_head, b, shared.scratch);
    if (rank > 0) return;
    for (int word = threadIdx.x; word < words; word += kThreads) mask[word] = range_bits(word, 0, blocks);
    if (threadIdx.x == 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(sequence.selected_blocks),
                static_cast<unsigned long long>(blocks));
    return;
  }

  const int first = full * rank * arg.slices / kSlices, end = full * (rank + 1) * arg.slices / kSlices;
  // The last CTA makes the key of the block that the token fills.
  const int known = min(end, position % kBlock == kBlock - 1 ? full - 1 : full);
  const __nv_bfloat16* const keys =
      static_cast<const __nv_bfloat16*>(sequence.keys) +
      (static_cast<std::int64_t>(p.layer) * gate.num_kv_heads + kv_head) * sequence.capacity * gate.dim;
  Tile tile{};
  tile.load(keys, gate.dim, first, first, known);
  const int channel = min(static_cast<int>(threadIdx.x), gate.dim / 2 - 1);
  const std::int64_t angle = static_cast<std::int64_t>(position) * (gate.dim / 2);
  const Rotation rotation(gate.q_norm, gate.cos + angle, gate.sin + angle, gate.dim, channel);
  const HeadNorm<kHeadDim> model_norm(gate.model_q_norm, gate.model_norm_eps, lane);
  const std::uint32_t parts_full = ptx::shared_address(&shared.parts_full);
  const std::uint32_t scores_full = ptx::shared_address(&shared.scores_full);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(parts_full, 1);
    ptx::mbarrier_init(scores_full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect(parts_full, static_cast<std::uint32_t>(4 * kSlices * gate.dim));
    ptx::mbarrier_arrive_expect(scores_full, static_cast<std::uint32_t>(4 * full));
  }
  __syncwarp();
  ptx::cluster_arrive_relaxed();
  ptx::wait_for_previous_kernel();

  const int first_head = first_row / kHeadDim;
  for (int head = first_head + warp; head * kHeadDim < end_row; head += kWarps) {
    float x[kHeadDim / 32];
    model_norm.load(static_cast<const T*>(p.qkv) + b * p.qkv_stride + (kv_head * arg.group + head) * kHeadDim,
                    lane, x);
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; ++i) shared.x[(head - first_head) * kHeadDim + i * 32 + lane] = x[i];
  }
  __syncthreads();
  ptx::cluster_wait();  // all CTAs have started, their barriers are there

#pragma unroll 1
  for (int slice = first_row; slice < end_row; slice += slice_rows) {
    const int slice_end = slice + slice_rows;
    float sum[8] = {};
#pragma unroll 1
    for (int row = slice; row < slice_end;) {
      weight_rows.add_to(sum, shared.x + (row - first_head * kHeadDim), tiling, row, slice_end);
      row = min(row + WeightRows::kRows * tiling.rows_on, slice_end);
      weight_rows.load(weights, tiling, gate.dim, row,
                       row < slice_end ? slice_end : min(slice_end + slice_rows, end_row));
    }
    if (slice > first_row) __syncthreads();  // the sums of the slice before have been read
    const float y = join(sum, tiling, slice_rows, gate.dim, shared.scratch.joint);
    if (threadIdx.x < gate.dim) {
      const std::uint32_t part = ptx::shared_address(&shared.parts[slice / slice_rows][threadIdx.x]);
#pragma unroll
      for (int cta = 0; cta < kSlices; ++cta)
        if (cta < ctas)
          ptx::store_async(ptx::address_in_cta(part, cta), y, ptx::address_in_cta(parts_full, cta));
    }
  }
  if (rank == ctas - 1) take_key<T, kHeadDim>(p, kv_head, b, shared.scratch);
  ptx::mbarrier_wait(parts_full, 0);

  if (threadIdx.x < gate.dim) {
    float sum = 0;
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) sum += shared.parts[slice][threadIdx.x];
    shared.y[threadIdx.x] = sum;
  }
  __syncthreads();
  if (known < end) tile.load(keys, gate.dim, first, known, end);
  const float2 pair = norm_and_rotate(shared.y, gate.dim, gate.q_norm != nullptr, rotation, channel, lane);
  if (threadIdx.x < gate.dim / 2) {
    const float scale = 1.0f / sqrtf(static_cast<float>(gate.dim));
    Weight low[kTerms], high[kTerms];
    split(pair.x * scale, low);
    split(pair.y * scale, high);
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      shared.query[term][channel] = low[term];
      shared.query[term][channel + gate.dim / 2] = high[term];
    }
  }
  __syncthreads();

  // The first CTA has sent its sums, and has no more use for what its scores lie over.
  const std::uint32_t scores = ptx::address_in_cta(ptx::shared_address(shared.scores), 0);
  const std::uint32_t barrier = ptx::address_in_cta(scores_full, 0);
#pragma unroll 1
  for (int begin = first; begin < end; begin += Tile::kRows) {
    if (begin > first) tile.load(keys, gate.dim, begin, begin, end);
#pragma unroll
    for (int i = 0; i < Tile::kTiles; ++i) {
      const int row = begin + Tile::row(i);
      if (row < end) score_tile<kPieces>(tile.piece[i], shared.query, gate.dim, row, end, scores, barrier);
    }
  }
  if (rank > 0) return;
  ptx::mbarrier_wait(scores_full, 0);

  float x[kMine];
  for_blocks<kMine>(blocks, [&](int i, int block) {
    x[i] = block < full ? shared.scores[block] : block < blocks ? 0.0f : -INFINITY;
  });
  const int kept = select_by_scores<kMine>(x, blocks, arg.rule, mask, words, shared.select);
  if (lane == 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(sequence.selected_blocks),
              static_cast<unsigned long long>(kept));
}

/// The largest float that is not above x, so that a float is above one exactly where it is above the other.
float rounded_down(double x) {
  const auto nearest = static_cast<float>(x);
  return static_cast<double>(nearest) > x ? std::nextafter(nearest, -INFINITY) : nearest;
}

}  // namespace

void launch_decode_gate_token(const DecodeGateTokenParams& p, CUstream_st* stream) {
  const std::int64_t budget = p.token_budget / kBlock;
  TokenArguments arguments = {
      .rule = {.threshold = rounded_down(p.threshold),
               .budget = static_cast<int>(budget < kMaxSelectBlocks ? budget : kMaxSelectBlocks)},
      .group = p.gate.num_heads / p.gate.num_kv_heads,
      .slices = 1};
  const std::int64_t lists = static_cast<std::int64_t>(p.batch) * p.gate.num_kv_heads;
  dispatch(p.gate.dtype, p.gate.head_dim, [&](auto type, auto dim) {
    using T = decltype(type);
    constexpr int kHeadDim = decltype(dim)::value;
    const auto kernel = p.gate.dim <= 128 ? token_kernel<T, kHeadDim, 4> : token_kernel<T, kHeadDim, 8>;
    // As many CTAs a list as all lists find room for at the same time; asynchronous stores want two at least.
    unsigned ctas = kSlices;
    while (ctas > 2 && resident_clusters("decode_gate", kernel, ctas, kThreads) < lists) ctas /= 2;
    arguments.slices = kSlices / static_cast<int>(ctas);
    const dim3 grid(ctas, p.gate.num_kv_heads, p.batch);
    launch_clusters_early("decode_gate", kernel, grid, ctas, kThreads, 0, stream, p, arguments);
  });
}

}  // namespace seer::cuda
