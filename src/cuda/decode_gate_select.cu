// The decode gate's scores and the blocks they select, for one token of each sequence.
//
// Several CTAs share the compressed keys of one (sequence, KV head): each has its first keys on their way
// before it waits for the query, whose parts it adds up itself, and leaves its scores in the workspace. The
// one that finishes last (a counter a list) takes all scores to registers, 256 blocks side by side, finds the
// cut by bisection, and writes the mask. Whoever is last computes the same.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/decode_gate.cuh"
#include "cuda/decode_gate_launch.h"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/select.cuh"

namespace seer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBlock = 64;

/// Scores [list of the batch][64 * mask_words] and what the launch knows.
struct SelectArguments {
  const float* query;
  float* scores;
  std::int32_t* finished;
  float threshold;  // a probability is above it exactly where it is above the double
  int budget;       // blocks; 0: by the threshold
  int slices;
};

/// Values of the CTA's warps, met in a fixed order. Two sets in turn need one barrier a meeting.
struct Meeting {
  float values[2][kWarps];
  int counts[2][kWarps];
};

template <class T, class Join>
__device__ __forceinline__ T meet(T (&slots)[2][kWarps], int& turn, T of_warp, const Join& join) {
  if (threadIdx.x % 32 == 0) slots[turn][threadIdx.x / 32] = of_warp;
  __syncthreads();
  T all = slots[turn][0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) all = join(all, slots[turn][warp]);
  turn ^= 1;
  return all;
}

__device__ __forceinline__ int add_counts(Meeting& meeting, int& turn, int count) {
  return meet(meeting.counts, turn, __reduce_add_sync(kAllLanes, count), [](int a, int b) { return a + b; });
}

/// The best k of more than k scores, block 256 * i + threadIdx.x in x[i], -infinity after the last one: those
/// above `value`, and the last `ties` of those equal to it.
template <int kMine>
__device__ __forceinline__ Cut top_k_cut(const float (&x)[kMine], int blocks, int k, Meeting& meeting,
                                         int& turn) {
  float most = -INFINITY, least = INFINITY;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    most = fmaxf(most, x[i]);
    if (i * kThreads + static_cast<int>(threadIdx.x) < blocks) least = fminf(least, x[i]);
  }
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  float high = meet(meeting.values, turn, warp_max(most), larger);
  float low = before(-meet(meeting.values, turn, warp_max(-least), larger));
  int above_high = 0;
#pragma unroll 1
  while (true) {  // fewer than k are above `high`, more than k above `low`
    const float at = middle(low, high);
    if (!(at > low && at < high)) return {high, k - above_high, 0};
    int mine = 0;
#pragma unroll
    for (int i = 0; i < kMine; ++i) mine += x[i] > at;
    const int count = add_counts(meeting, turn, mine);
    if (count == k) return {at, 0, 0};
    if (count < k) {
      high = at;
      above_high = count;
    } else {
      low = at;
    }
  }
}

/// In place: the softmax of scores as top_k_cut takes them.
template <int kMine>
__device__ __forceinline__ void softmax(float (&x)[kMine], Meeting& meeting, int& turn) {
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kMine; ++i) most = fmaxf(most, x[i]);
  most = meet(meeting.values, turn, warp_max(most), [](float a, float b) { return fmaxf(a, b); }) * kLog2E;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) sum += x[i] = ptx::exp2_approx(fmaf(x[i], kLog2E, -most));
  const float share =
      1.0f / meet(meeting.values, turn, warp_sum(sum), [](float a, float b) { return a + b; });
#pragma unroll
  for (int i = 0; i < kMine; ++i) x[i] *= share;
}

template <int kMine>
struct SelectShared {
  float y[kThreads];      // the query before its norm
  float query[kThreads];  // after RoPE, times the scores' scale
  Meeting meeting;
  std::uint32_t equal[kMine * kWarps];  // bits of the blocks at the cut
  int last;                             // this CTA selects
};

/// Keeps of the blocks in `equal` the last `ties` only.
template <int kMine>
__device__ __forceinline__ void keep_last(std::uint32_t (&equal)[kMine * kWarps], int ties) {
  for (int word = kMine * kWarps - 1; word >= 0; --word) {
    while (__popc(equal[word]) > ties) equal[word] &= equal[word] - 1;
    ties -= __popc(equal[word]);
  }
}

/// Writes the mask of the row by its scores; all threads of a CTA. Returns the number of blocks kept.
template <int kMine>
__device__ __forceinline__ int select_by_scores(float (&x)[kMine], int blocks, const SelectArguments& arg,
                                                std::uint32_t* mask, int words, SelectShared<kMine>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int turn = 0;
  Cut cut = {arg.threshold, 0, 0};
  if (arg.budget > 0) {
    cut = top_k_cut(x, blocks, arg.budget, shared.meeting, turn);
  } else {
    softmax(x, shared.meeting, turn);
  }
  if (cut.ties > 0) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const std::uint32_t equal = __ballot_sync(
          kAllLanes, i * kThreads + static_cast<int>(threadIdx.x) < blocks && x[i] == cut.value);
      if (lane == 0) shared.equal[i * kWarps + warp] = equal;
    }
    __syncthreads();
    if (threadIdx.x == 0) keep_last<kMine>(shared.equal, cut.ties);
    __syncthreads();
  }
  int count = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int word = i * kWarps + warp;
    std::uint32_t bits = __ballot_sync(kAllLanes, x[i] > cut.value) & range_bits(word, 0, blocks);
    if (cut.ties > 0) bits |= shared.equal[word];
    bits |= range_bits(word, blocks - 1, blocks);
    count += __popc(bits);
    if (lane == 0 && word < words) mask[word] = bits;
  }
  for (int word = kMine * kWarps + threadIdx.x; word < words; word += kThreads) mask[word] = 0;
  return meet(shared.meeting.counts, turn, count, [](int a, int b) { return a + b; });
}

/// Keys of one round: a warp reads 8 rows, four lanes a row, in pieces of 16 bytes.
template <int kPieces>
struct KeyTile {
  static constexpr int kRounds = kPieces > 4 ? 1 : 2;
  static constexpr int kRows = 8 * kWarps * kRounds;
  uint4 piece[kRounds][kPieces];

  __device__ static int row(int round) { return round * 8 * kWarps + static_cast<int>(threadIdx.x) / 4; }

  /// Rows first + row(round) that wants() says; the others keep what they hold.
  template <class Wants>
  __device__ __forceinline__ void load(const __nv_bfloat16* keys, int dim, int first, const Wants& wants) {
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int key = first + row(round);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int channel = (i * 4 + static_cast<int>(threadIdx.x) % 4) * 8;
        // Not through L1, which may hold the sector from before a key in it was made.
        if (wants(key) && channel < dim)
          piece[round][i] =
              __ldcg(reinterpret_cast<const uint4*>(keys + static_cast<std::int64_t>(key) * dim + channel));
      }
    }
  }
};

/// kPieces: 16-byte pieces of a key of a lane, 4 for a gate size up to 128, 8 up to 256. kMine: blocks of a
/// thread in the selection. grid [parts, num_kv_heads, batch].
template <int kPieces, int kMine>
__global__ void __launch_bounds__(kThreads) select_kernel(DecodeGateTokenParams p, SelectArguments arg) {
  using Tile = KeyTile<kPieces>;
  __shared__ __align__(16) SelectShared<kMine> shared;
  ptx::let_next_kernel_start();
  const DecodeGateLayerParams& gate = p.gate;
  const int lane = threadIdx.x % 32;
  const int part = blockIdx.x, parts = gridDim.x, kv_head = blockIdx.y, b = blockIdx.z;
  const int position = p.positions[b];
  const int full = (position + 1) / kBlock, blocks = position / kBlock + 1;
  const int fresh = position % kBlock == kBlock - 1 ? full - 1 : -1;  // the kernel before makes its key
  const int first = full * part / parts, end = full * (part + 1) / parts;
  const DecodeGateSequence sequence = p.sequences[b];
  const std::int64_t layer_list = static_cast<std::int64_t>(p.layer) * gate.num_kv_heads + kv_head;
  const std::int64_t list = static_cast<std::int64_t>(b) * gate.num_kv_heads + kv_head;
  const __nv_bfloat16* const keys =
      static_cast<const __nv_bfloat16*>(sequence.keys) + layer_list * sequence.capacity * gate.dim;
  std::uint32_t* const mask = reinterpret_cast<std::uint32_t*>(p.mask + list * p.mask_words);
  const int words = static_cast<int>(2 * p.mask_words);

  Tile tile{};
  tile.load(keys, gate.dim, first, [&](int key) { return key < end && key != fresh; });
  const int channel = min(static_cast<int>(threadIdx.x), gate.dim / 2 - 1);
  const std::int64_t angle = static_cast<std::int64_t>(position) * (gate.dim / 2);
  const Rotation rotation(gate.q_norm, gate.cos + angle, gate.sin + angle, gate.dim, channel);
  ptx::wait_for_previous_kernel();

  if (arg.budget >= blocks) {
    if (part > 0) return;
    for (int word = threadIdx.x; word < words; word += kThreads) mask[word] = range_bits(word, 0, blocks);
    if (threadIdx.x == 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(sequence.selected_blocks),
                static_cast<unsigned long long>(blocks));
    return;
  }

  if (threadIdx.x < gate.dim) {
    const float* parts_of_query = arg.query + list * arg.slices * gate.dim + threadIdx.x;
    float sum = 0;
#pragma unroll 16
    for (int slice = 0; slice < arg.slices; ++slice) sum += __ldcg(parts_of_query + slice * gate.dim);
    shared.y[threadIdx.x] = sum;
  }
  tile.load(keys, gate.dim, first, [&](int key) { return key < end && key == fresh; });
  __syncthreads();
  const float2 pair = norm_and_rotate(shared.y, gate.dim, gate.q_norm != nullptr, rotation, channel, lane);
  if (threadIdx.x < gate.dim / 2) {
    const float scale = 1.0f / sqrtf(static_cast<float>(gate.dim));
    shared.query[channel] = pair.x * scale;
    shared.query[channel + gate.dim / 2] = pair.y * scale;
  }
  __syncthreads();

  float* const scores = arg.scores + list * p.mask_words * 64;
#pragma unroll 1
  for (int begin = first; begin < end; begin += Tile::kRows) {
    if (begin > first) tile.load(keys, gate.dim, begin, [&](int key) { return key < end; });
#pragma unroll
    for (int round = 0; round < Tile::kRounds; ++round) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int from = (i * 4 + lane % 4) * 8;
        if (from >= gate.dim) continue;
        float key[8];
        widen8<__nv_bfloat16>(tile.piece[round][i], key);
        const float4 low = *reinterpret_cast<const float4*>(shared.query + from);
        const float4 high = *reinterpret_cast<const float4*>(shared.query + from + 4);
        sum = fmaf(low.x, key[0], fmaf(low.y, key[1], fmaf(low.z, key[2], fmaf(low.w, key[3], sum))));
        sum = fmaf(high.x, key[4], fmaf(high.y, key[5], fmaf(high.z, key[6], fmaf(high.w, key[7], sum))));
      }
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const int row = begin + Tile::row(round);
      if (lane % 4 == 0 && row < end) scores[row] = sum;
    }
  }

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.last = atomicAdd(arg.finished + list, 1) == parts - 1;
    if (shared.last) arg.finished[list] = 0;
    __threadfence();
  }
  __syncthreads();
  if (shared.last == 0) return;
  float x[kMine];
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int block = i * kThreads + static_cast<int>(threadIdx.x);
    x[i] = block < full ? __ldcg(scores + block) : block < blocks ? 0.0f : -INFINITY;
  }
  const int kept = select_by_scores<kMine>(x, blocks, arg, mask, words, shared);
  if (threadIdx.x == 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(sequence.selected_blocks),
              static_cast<unsigned long long>(kept));
}

/// The largest float that is not above x, so that a float is above one exactly where it is above the other.
float rounded_down(double x) {
  const auto nearest = static_cast<float>(x);
  return static_cast<double>(nearest) > x ? std::nextafter(nearest, -INFINITY) : nearest;
}

}  // namespace

void launch_decode_gate_select(const DecodeGateTokenParams& p, const DecodeGateScratch& scratch, int parts,
                               CUstream_st* stream) {
  const std::int64_t budget = p.token_budget / kBlock;
  const SelectArguments arguments = {
      .query = scratch.query,
      .scores = scratch.scores,
      .finished = scratch.finished,
      .threshold = rounded_down(p.threshold),
      .budget = static_cast<int>(budget < kMaxSelectBlocks ? budget : kMaxSelectBlocks),
      .slices = query_slices(p.gate)};
  const dim3 grid(parts, p.gate.num_kv_heads, p.batch);
  const bool is_short = p.mask_words * 64 <= kMaxSelectBlocks / 2;
  const auto kernel = p.gate.dim <= 128 ? (is_short ? select_kernel<4, 8> : select_kernel<4, 16>)
                                        : (is_short ? select_kernel<8, 8> : select_kernel<8, 16>);
  launch_early("decode_gate", kernel, grid, kThreads, 0, stream, p, arguments);
}

}  // namespace seer::cuda
