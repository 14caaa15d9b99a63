// The gate's scores and the blocks they select, for any hidden size and for few rows; gate_threshold.cu and
// gate_cut.cu have the other cases.
//
// A CTA takes 32 (or 16) block rows of one head. First each warp multiplies the rows, which it holds as
// fragments, with key blocks that it reads straight from L2, and leaves the scores in shared memory; then a
// warp takes a row at a time to registers, turns its scores into probabilities where the rule asks for them,
// and selects (select.cuh). The order of the channels in a product does not matter, so a lane takes 16
// contiguous bytes of a row for two steps of 16 channels.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/device_array.h"
#include "cuda/gate_launch.h"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/select.cuh"

namespace seer::cuda {
namespace {

/// Score: type of the scores in shared memory. kTiles: tiles of 16 rows. kChunks: words of a row. kDim:
/// channels, 0 for a number known at run time only.
template <class Score, int kTiles, int kChunks, int kDim>
struct GateSelect {
  // Short rows: small CTAs that fill each other's pauses. Long ones: one CTA's scores fill a multiprocessor.
  static constexpr int kThreads = kTiles == 2 ? 512 : 256;
  static constexpr int kCtas = kChunks > 16 ? 1 : kDim == 128 ? 3 : 2;  // a multiprocessor
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRows = 16 * kTiles;
  static constexpr int kColumns = 8;  // key blocks of a product

  /// Scores of a row in shared memory: its end keeps rows off each other's banks.
  static int pitch(std::int64_t blocks) { return static_cast<int>((blocks + 63) / 64 * 64 + 8); }
  static int shared_bytes(std::int64_t blocks) {
    return kRows * pitch(blocks) * static_cast<int>(sizeof(Score));
  }
};

/// A lane's channels of one row: 16 bytes of every 64.
template <int kDim>
struct RowFragment {
  uint4 part[kDim / 32];

  __device__ __forceinline__ void load(const __nv_bfloat16* row, int lane) {
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i)
      part[i] = *reinterpret_cast<const uint4*>(row + (i * 4 + lane % 4) * 8);
  }
};

__device__ __forceinline__ void store_scores(float* out, float a, float b) {
  *reinterpret_cast<float2*>(out) = {a, b};
}
__device__ __forceinline__ void store_scores(__half* out, float a, float b) {
  *reinterpret_cast<std::uint32_t*>(out) = ptx::pack<__half>(a, b);
}

template <class Score, int kTiles, int kChunks, int kDim>
__global__ void __launch_bounds__(GateSelect<Score, kTiles, kChunks, kDim>::kThreads,
                                  GateSelect<Score, kTiles, kChunks, kDim>::kCtas)
    gate_select_kernel(GateSelectParams p, RowRule rule, int pitch) {
  using Config = GateSelect<Score, kTiles, kChunks, kDim>;
  extern __shared__ __align__(16) std::uint8_t memory[];
  __shared__ float scratch[Config::kWarps][32];
  Score* const scores = reinterpret_cast<Score*>(memory);  // [kRows, pitch]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = lane / 4;  // a lane's row in a tile of queries, and its key block in a tile of keys
  // The longest rows of all heads first.
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(p.heads));
  const std::int64_t tile = (p.rows - 1) / Config::kRows - blockIdx.x / static_cast<unsigned>(p.heads);
  const std::int64_t tile_row = tile * Config::kRows;
  const int rows = static_cast<int>(min(std::int64_t{Config::kRows}, p.rows - tile_row));
  const int columns = static_cast<int>(p.first_row + tile_row + rows);  // of the last row
  const __nv_bfloat16* const q = static_cast<const __nv_bfloat16*>(p.q) + head * p.q_head_stride;
  const __nv_bfloat16* const k =
      static_cast<const __nv_bfloat16*>(p.k) + head / (p.heads / p.k_heads) * p.k_head_stride;
  const auto query = [&](int row) { return q + (tile_row + min(row, rows - 1)) * p.q_row_stride; };
  const auto key = [&](int column) {
    return k + static_cast<std::int64_t>(min(column, columns - 1)) * p.dim;
  };
  const float scale = 1.0f / sqrtf(static_cast<float>(p.dim));
  ptx::wait_for_previous_kernel();
  const auto store = [&](int column, const float(&sum)[kTiles][4]) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        store_scores(scores + (m * 16 + r * 8 + group) * pitch + column + lane % 4 * 2, sum[m][2 * r] * scale,
                     sum[m][2 * r + 1] * scale);
      }
    }
  };

  if constexpr (kDim > 0) {
    RowFragment<kDim> rows_low[kTiles], rows_high[kTiles];  // rows `group` and `group` + 8 of a tile
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      rows_low[m].load(query(m * 16 + group), lane);
      rows_high[m].load(query(m * 16 + 8 + group), lane);
    }
    constexpr int kStep = Config::kWarps * Config::kColumns;
    RowFragment<kDim> next;
    next.load(key(warp * Config::kColumns + group), lane);
#pragma unroll 1
    for (int column = warp * Config::kColumns; column < columns; column += kStep) {
      const RowFragment<kDim> keys = next;
      if (column + kStep < columns) next.load(key(column + kStep + group), lane);
      float sum[kTiles][4] = {};
#pragma unroll
      for (int i = 0; i < kDim / 32; ++i) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          const uint4& low = rows_low[m].part[i];
          const uint4& high = rows_high[m].part[i];
          ptx::mma<__nv_bfloat16>(sum[m], {low.x, high.x, low.y, high.y}, keys.part[i].x, keys.part[i].y);
          ptx::mma<__nv_bfloat16>(sum[m], {low.z, high.z, low.w, high.w}, keys.part[i].z, keys.part[i].w);
        }
      }
      store(column, sum);
    }
  } else {
    const auto load = [&](const __nv_bfloat16* row, int channel) {
      return *reinterpret_cast<const std::uint32_t*>(row + channel + lane % 4 * 2);
    };
    for (int column = warp * Config::kColumns; column < columns;
         column += Config::kWarps * Config::kColumns) {
      const __nv_bfloat16* const keys = key(column + group);
      float sum[kTiles][4] = {};
      for (int d = 0; d < p.dim; d += 16) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          const __nv_bfloat16* const low = query(m * 16 + group);
          const __nv_bfloat16* const high = query(m * 16 + 8 + group);
          ptx::mma<__nv_bfloat16>(sum[m], {load(low, d), load(high, d), load(low, d + 8), load(high, d + 8)},
                                  load(keys, d), load(keys, d + 8));
        }
      }
      store(column, sum);
    }
  }
  __syncthreads();

  const int words = static_cast<int>(2 * p.mask_words);
  unsigned long long selected = 0;
#pragma unroll 1
  for (int row = warp; row < rows; row += Config::kWarps) {
    const std::int64_t block_row = p.first_row + tile_row + row;
    const int causal = static_cast<int>(block_row) + 1;
    std::uint32_t* const mask =
        reinterpret_cast<std::uint32_t*>(p.mask + (head * p.rows + tile_row + row) * p.mask_words);
    if (block_row >= rule.dense_from || (rule.rule == SelectRule::kNzRatio && rule.k >= causal)) {
      selected += fill_row(0, causal, false, mask, words, lane);
      continue;
    }
    float x[kChunks];
    const Score* const source = scores + row * pitch;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) x[c] = -INFINITY;
    for_chunks<kChunks>(causal, [&](int c) {
      if (c * 32 + lane < causal) x[c] = static_cast<float>(source[c * 32 + lane]);
    });
    const bool is_probability = rule.rule != SelectRule::kNzRatio;
    Softmax softmax = {0, 1};
    if (is_probability) softmax = softmax_row(x, causal);
    const auto value_of = [&](int block) {
      const float score = static_cast<float>(source[block]);
      return is_probability ? softmax(score) : score;
    };
    selected += select_row<float>(x, causal, rule, value_of, scratch[warp], mask, words, lane);
  }
  if (p.selected_blocks != nullptr && lane == 0 && selected > 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(p.selected_blocks), selected);
}

template <class Score, int kTiles, int kChunks, int kDim>
void launch_case(const GateSelectParams& p, CUstream_st* stream) {
  using Config = GateSelect<Score, kTiles, kChunks, kDim>;
  const auto kernel = gate_select_kernel<Score, kTiles, kChunks, kDim>;
  const std::int64_t blocks = p.first_row + p.rows;
  const int bytes = Config::shared_bytes(blocks);
  const std::int64_t tiles = (p.rows + Config::kRows - 1) / Config::kRows;
  launch_early("gate_select", kernel, dim3(static_cast<unsigned>(tiles * p.heads)), Config::kThreads, bytes,
               stream, p, row_rule(p.select), Config::pitch(blocks));
}

/// More rows a CTA read the keys less often; longer rows leave room for fewer, and for half precision only.
template <int kDim>
void launch(const GateSelectParams& p, CUstream_st* stream) {
  const std::int64_t blocks = p.first_row + p.rows;
  const auto run = blocks <= 512    ? launch_case<float, 1, 16, kDim>
                   : blocks <= 1024 ? launch_case<float, 2, 32, kDim>
                   : blocks <= 2048 ? launch_case<__half, 2, 64, kDim>
                                    : launch_case<__half, 1, 128, kDim>;
  run(p, stream);
}

}  // namespace

void launch_gate_select(const GateSelectParams& p, CUstream_st* stream) {
  (p.dim == 128 ? launch<128> : p.dim == 64 ? launch<64> : launch<0>)(p, stream);
}

}  // namespace seer::cuda
