// Attention of one query token a sequence over a paged cache on sm_90a: bound by memory.
//
// One CTA takes one part of the list of blocks of one (sequence, KV head): a warp walks the list and drives
// the copy engine through a ring of K and V tiles, four warps compute. The heads of the group are the rows of
// one 16-row product (unused rows are zero); a computing warp owns 16 of a block's 64 keys and keeps its own
// running softmax, so warps meet only at the end. The part's result goes to the workspace, and the last part
// of a (sequence, KV head) to finish combines all of them in the order of the parts.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/check.h"
#include "cuda/decode.h"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

namespace seer::cuda {

inline constexpr float kLn2 = 0.69314718055994530942f;

template <int kHeadDim>
struct DecodeConfig {
  static constexpr int kTileBytes = 64 * kHeadDim * 2;
  static constexpr int kStages = kHeadDim == 128 ? 3 : 6;  // 96 KB on their way in each of two CTAs
  static constexpr int kWarps = 4;                         // computing
  static constexpr int kThreads = 32 * (kWarps + 1);
  static constexpr int kSharedBytes = 2 * kStages * kTileBytes + 1024;
};

template <int kHeadDim>
struct DecodeShared {
  using Config = DecodeConfig<kHeadDim>;
  union {
    struct {
      alignas(1024) std::uint8_t k[Config::kStages][Config::kTileBytes];
      std::uint8_t v[Config::kStages][Config::kTileBytes];
    };
    float out[Config::kWarps][16][kHeadDim];  // once the blocks are done
    float weight[16][kMaxSplits];             // once the parts are done
  };
  std::uint64_t full[Config::kStages];
  std::uint64_t empty[Config::kStages];
  std::int32_t keys[Config::kStages];  // valid keys of the block in the slot
  float row_max[Config::kWarps][16];
  float row_sum[Config::kWarps][16];
  std::int32_t blocks;  // of this part
  std::int32_t last;    // this CTA combines
};

template <class T, int kHeadDim>
__global__ void __launch_bounds__(DecodeConfig<kHeadDim>::kThreads, 2)
    decode_kernel(const __grid_constant__ DecodeMaps maps, const __grid_constant__ DecodeArguments arg) {
  using Config = DecodeConfig<kHeadDim>;
  using Shared = DecodeShared<kHeadDim>;
  static_assert(sizeof(Shared) <= Config::kSharedBytes);
  extern __shared__ __align__(1024) std::uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  ptx::let_next_kernel_start();
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const int part = blockIdx.x;
  const int kv_head = blockIdx.y;
  const int b = blockIdx.z;
  const int group = arg.num_heads / arg.num_kv_heads;
  const float scale_log2 = arg.scale * ptx::kLog2E;

  if (threadIdx.x == 0) {
    for (int i = 0; i < Config::kStages; ++i) {
      ptx::mbarrier_init(ptx::shared_address(&shared.full[i]), 1);
      ptx::mbarrier_init(ptx::shared_address(&shared.empty[i]), Config::kWarps);
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_tensor_map(&maps.k);
    ptx::prefetch_tensor_map(&maps.v);
  }

  ptx::wait_for_previous_kernel();

  const std::uint64_t* mask_row =
      arg.mask == nullptr
          ? nullptr
          : arg.mask + (static_cast<std::int64_t>(b) * arg.num_kv_heads + kv_head) * arg.mask_words;
  const auto read_words = [&](int chunk) {
    const int word = chunk * 32 + lane;
    return mask_row != nullptr && word < arg.mask_words ? __ldcg(mask_row + word) : ~std::uint64_t{0};
  };
  std::uint64_t words = warp == Config::kWarps ? read_words(0) : 0;  // beside the length, not after it
  const int length = __ldg(arg.seqlens_k + b);
  const int last_block = (length + 63) / 64 - 1;
  const auto limit_words = [&](std::uint64_t bits, int chunk) {
    const int word = chunk * 32 + lane;
    if (last_block < 0 || word > last_block >> 6) return std::uint64_t{0};
    return word == last_block >> 6 ? bits & ~std::uint64_t{0} >> (63 - (last_block & 63)) : bits;
  };
  const int chunks = last_block < 0 ? 0 : (last_block >> 11) + 1;
  int begin = 0;
  int end = 0;
  if (warp == Config::kWarps) {
    words = limit_words(words, 0);
    int mine = __popcll(words);
    for (int chunk = 1; chunk < chunks; ++chunk) mine += __popcll(limit_words(read_words(chunk), chunk));
    const std::int64_t total = __reduce_add_sync(0xffffffffu, mine);
    begin = static_cast<int>(total * part / arg.splits);
    end = static_cast<int>(total * (part + 1) / arg.splits);
    if (lane == 0) shared.blocks = end - begin;
  }
  __syncthreads();

  if (warp == Config::kWarps) {
    const std::int32_t* pages = arg.page_table + b * arg.page_table_stride;
    int slot = 0;
    std::uint32_t parity = 1;
    // A block is fetched when the next one is known, so that its page number has had time to arrive.
    int block = -1;
    int page = 0;
    const auto fetch = [&] {
      ptx::mbarrier_wait(ptx::shared_address(&shared.empty[slot]), parity);
      if (lane == 0) {
        const std::uint32_t barrier = ptx::shared_address(&shared.full[slot]);
        shared.keys[slot] = min(64, length - block * 64);
        ptx::mbarrier_arrive_expect(barrier, 2 * Config::kTileBytes);
        ptx::load_box_5d(ptx::shared_address(shared.k[slot]), &maps.k, barrier, 0, 0, 0, kv_head, page);
        ptx::load_box_5d(ptx::shared_address(shared.v[slot]), &maps.v, barrier, 0, 0, 0, kv_head, page);
      }
      if (++slot == Config::kStages) {
        slot = 0;
        parity ^= 1;
      }
    };
    int rank = 0;  // of the next selected block
    for (int chunk = 0; chunk < chunks && rank < end; ++chunk) {
      if (chunk > 0) words = limit_words(read_words(chunk), chunk);
      for (int w = 0; w < 32 && rank < end; ++w) {
        std::uint64_t bits = __shfl_sync(0xffffffffu, words, w);
        const int count = __popcll(bits);
        if (rank + count <= begin) {
          rank += count;
          continue;
        }
        for (; bits != 0 && rank < end; bits &= bits - 1, ++rank) {
          if (rank < begin) continue;
          const int next = (chunk * 32 + w) * 64 + __ffsll(static_cast<long long>(bits)) - 1;
          const int next_page = __ldg(pages + next);
          if (block >= 0) fetch();
          block = next;
          page = next_page;
        }
      }
    }
    if (block >= 0) fetch();
    return;
  }

  // Fragments of q: row = head of the group.
  constexpr int kSteps = kHeadDim / 16;
  std::uint32_t q[kSteps][4];
  {
    const T* base = static_cast<const T*>(arg.q) + b * arg.q_batch_stride;
#pragma unroll
    for (int i = 0; i < 4 * kSteps; ++i) {
      const int row = lane / 4 + i % 2 * 8;
      const int column = i / 4 * 16 + i % 4 / 2 * 8 + lane % 4 * 2;
      q[i / 4][i % 4] = row < group ? __ldg(reinterpret_cast<const unsigned*>(
                                          base + (kv_head * group + row) * arg.q_head_stride + column))
                                    : 0u;
    }
  }

  float o[kHeadDim / 8][4] = {};
  float row_max[2] = {-INFINITY, -INFINITY};
  float row_sum[2] = {};
  const int blocks = shared.blocks;
  int slot = 0;
  std::uint32_t parity = 0;
  for (int j = 0; j < blocks; ++j) {
    ptx::mbarrier_wait(ptx::shared_address(&shared.full[slot]), parity);
    const int keys = shared.keys[slot] - warp * 16;  // of this warp's 16
    const std::uint32_t k_tile = ptx::shared_address(shared.k[slot]);
    const std::uint32_t v_tile = ptx::shared_address(shared.v[slot]);
    float s[2][4] = {};
    {
      const int row = warp * 16 + lane / 16 * 8 + lane % 8;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int chunk = step % 4 * 2 + lane / 8 % 2;
        std::uint32_t fragment[4];
        ptx::load_matrix_x4(fragment, k_tile + step / 4 * 8192 + row * 128 + ((chunk ^ (row & 7)) * 16));
        ptx::mma<T>(s[0], q[step], fragment[0], fragment[1]);
        ptx::mma<T>(s[1], q[step], fragment[2], fragment[3]);
      }
    }
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= keys) s[i / 4][i % 4] = -INFINITY;
      top[i % 4 / 2] = fmaxf(top[i % 4 / 2], s[i / 4][i % 4]);
    }
    float shift[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
      top[r] = fmaxf(top[r], row_max[r]);
      shift[r] = top[r] == -INFINITY ? 0.0f : top[r] * scale_log2;
    }
    if (__any_sync(0xffffffffu, top[0] != row_max[0] || top[1] != row_max[1])) {
      const float factor[2] = {ptx::exp2_approx(row_max[0] * scale_log2 - shift[0]),
                               ptx::exp2_approx(row_max[1] * scale_log2 - shift[1])};
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) o[i / 4][i % 4] *= factor[i % 4 / 2];
      row_sum[0] *= factor[0];
      row_sum[1] *= factor[1];
      row_max[0] = top[0];
      row_max[1] = top[1];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float& x = s[i / 4][i % 4];
      x = ptx::exp2_approx(fmaf(x, scale_log2, -shift[i % 4 / 2]));
      row_sum[i % 4 / 2] += x;
    }
    const std::uint32_t p[4] = {ptx::pack<T>(s[0][0], s[0][1]), ptx::pack<T>(s[0][2], s[0][3]),
                                ptx::pack<T>(s[1][0], s[1][1]), ptx::pack<T>(s[1][2], s[1][3])};
    {
      const int row = warp * 16 + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
      for (int pair = 0; pair < kSteps; ++pair) {
        const int chunk = pair % 4 * 2 + lane / 16;
        std::uint32_t fragment[4];
        ptx::load_matrix_x4_transposed(fragment,
                                       v_tile + pair / 4 * 8192 + row * 128 + ((chunk ^ (row & 7)) * 16));
        ptx::mma<T>(o[2 * pair], p, fragment[0], fragment[1]);
        ptx::mma<T>(o[2 * pair + 1], p, fragment[2], fragment[3]);
      }
    }
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&shared.empty[slot]));
    if (++slot == Config::kStages) {
      slot = 0;
      parity ^= 1;
    }
  }

  // The four warps' results meet in the ring's memory: no copy is under way any more.
  constexpr int kComputing = 32 * Config::kWarps;
  ptx::named_barrier_sync(1, kComputing);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_sum[r] += __shfl_xor_sync(0xffffffffu, row_sum[r], 1);
    row_sum[r] += __shfl_xor_sync(0xffffffffu, row_sum[r], 2);
    const int row = lane / 4 + r * 8;
    if (lane % 4 == 0) {
      shared.row_max[warp][row] = row_max[r] * scale_log2;
      shared.row_sum[warp][row] = row_sum[r];
    }
#pragma unroll
    for (int i = 0; i < kHeadDim / 8; ++i) {
      *reinterpret_cast<float2*>(&shared.out[warp][row][i * 8 + lane % 4 * 2]) =
          make_float2(o[i][2 * r], o[i][2 * r + 1]);
    }
  }
  ptx::named_barrier_sync(1, kComputing);

  const std::int64_t first_head = static_cast<std::int64_t>(b) * arg.num_heads + kv_head * group;
  const std::int64_t part_heads = static_cast<std::int64_t>(arg.batch) * arg.num_heads;
  for (int i = threadIdx.x; i < group * kHeadDim; i += kComputing) {
    const int row = i / kHeadDim;
    const int column = i % kHeadDim;
    float top = -INFINITY;
    for (int w = 0; w < Config::kWarps; ++w) top = fmaxf(top, shared.row_max[w][row]);
    float sum = 0;
    float value = 0;
    if (top > -INFINITY) {
      for (int w = 0; w < Config::kWarps; ++w) {
        const float weight = ptx::exp2_approx(shared.row_max[w][row] - top);
        sum += weight * shared.row_sum[w][row];
        value += weight * shared.out[w][row][column];
      }
      value /= sum;
    }
    const float lse = top > -INFINITY ? top + log2f(sum) : -INFINITY;
    if (arg.splits == 1) {
      static_cast<T*>(
          arg.out)[b * arg.out_batch_stride + (kv_head * group + row) * arg.out_head_stride + column] =
          static_cast<T>(value);
      if (arg.lse != nullptr && column == 0) arg.lse[first_head + row] = lse * kLn2;
    } else {
      const std::int64_t head = part * part_heads + first_head + row;
      arg.partial_out[head * kHeadDim + column] = value;
      if (column == 0) arg.partial_lse[head] = lse;
    }
  }
  if (arg.splits == 1) return;

  __threadfence();
  ptx::named_barrier_sync(1, kComputing);
  if (threadIdx.x == 0) {
    std::int32_t* finished = arg.finished + b * arg.num_kv_heads + kv_head;
    shared.last = atomicAdd(finished, 1) == arg.splits - 1;
    if (shared.last) *finished = 0;
    __threadfence();
  }
  ptx::named_barrier_sync(1, kComputing);
  if (shared.last == 0) return;
  // The first parts of a thread's outputs are on their way while the weights are found.
  constexpr int kAhead = 16;
  const int outputs = group * kHeadDim;
  float4 ahead[kAhead];
  const auto load_parts = [&](int output, int first) {
    const float* parts = arg.partial_out + first_head * kHeadDim + output;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i < arg.splits)
        ahead[i] = __ldcg(reinterpret_cast<const float4*>(parts + (first + i) * part_heads * kHeadDim));
    }
  };
  int output = static_cast<int>(threadIdx.x) * 4;
  if (output < outputs) load_parts(output, 0);
  // Weights of the parts, a warp a row.
  for (int row = warp; row < group; row += Config::kWarps) {
    float lse[kMaxSplits / 32];
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      const int s = i * 32 + lane;
      lse[i] = s < arg.splits ? __ldcg(arg.partial_lse + s * part_heads + first_head + row) : -INFINITY;
      top = fmaxf(top, lse[i]);
    }
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      lse[i] = top > -INFINITY ? ptx::exp2_approx(lse[i] - top) : 0;
      sum += lse[i];
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      shared.weight[row][i * 32 + lane] = top > -INFINITY ? lse[i] / sum : 0;
    }
    if (arg.lse != nullptr && lane == 0) {
      arg.lse[first_head + row] = top > -INFINITY ? (top + log2f(sum)) * kLn2 : -INFINITY;
    }
  }
  ptx::named_barrier_sync(1, kComputing);
  for (; output < outputs; output += kComputing * 4) {
    const int row = output / kHeadDim;
    float4 value = {};
#pragma unroll 1
    for (int first = 0; first < arg.splits; first += kAhead) {
      if (first > 0 || output >= kComputing * 4) load_parts(output, first);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first + i < arg.splits) {
          const float weight = shared.weight[row][first + i];
          value.x += weight * ahead[i].x;
          value.y += weight * ahead[i].y;
          value.z += weight * ahead[i].z;
          value.w += weight * ahead[i].w;
        }
      }
    }
    *reinterpret_cast<uint2*>(static_cast<T*>(arg.out) + b * arg.out_batch_stride +
                              (kv_head * group + row) * arg.out_head_stride + output % kHeadDim) =
        make_uint2(ptx::pack<T>(value.x, value.y), ptx::pack<T>(value.z, value.w));
  }
}

template <class T, int kHeadDim>
void launch_decode(const DecodeMaps& maps, const DecodeArguments& arguments, CUstream_st* stream) {
  using Config = DecodeConfig<kHeadDim>;
  const auto kernel = decode_kernel<T, kHeadDim>;
  const dim3 grid(arguments.splits, arguments.num_kv_heads, arguments.batch);
  launch_early("attention_decode", kernel, grid, Config::kThreads, Config::kSharedBytes, stream, maps,
               arguments);
}

}  // namespace seer::cuda
