// The blocks whose share of a row's softmax exceeds a threshold.
//
// The first product leaves a row's maximum and sum of exponentials. Then a block's share exceeds the
// threshold exactly where its score exceeds one number, so of the second product only the comparisons are
// left, whose bits are the mask. Two products cost less than a pass of all scores through shared memory.
#include "cuda/gate_rows.cuh"

namespace seer::cuda {
namespace {

constexpr int kStages = 4;

template <int kDim, int kGroups>
struct Shared {
  alignas(1024) std::uint8_t q[kGroups][KeyRing<kDim, kStages>::kTileBytes];
  KeyRing<kDim, kStages> keys;
};

template <int kDim, int kGroups>
__global__ void __launch_bounds__(128 * kGroups + 32, 2)
    gate_threshold_kernel(const __grid_constant__ GateSelectMaps maps, GateSelectParams p, float threshold,
                          std::int64_t dense_from) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<kDim, kGroups>*>(memory);
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const CtaRows<kGroups> cta(p);
  if (threadIdx.x == 0) init_barriers(shared.keys, 4 * kGroups);
  __syncthreads();
  ptx::wait_for_previous_kernel();

  if (warp == 4 * kGroups) {
    if (lane != 0) return;
    KeyFetcher<kDim, kStages> fetcher{maps, shared.keys, cta.head / (p.heads / p.k_heads), cta.key_tiles};
    fetcher.fetch_queries(shared.q, cta);
    fetcher.fetch_keys();
    fetcher.fetch_keys();
    return;
  }

  RowTile<kDim, kStages> tile(shared.keys, shared.q, cta, warp, lane);
  const float scale = product_scale<kDim>();
  RowStats stats;
  tile.template for_tiles<kGroups == 1>([&](int t, float(&s)[32]) {
    tile.hide(t, s);
    stats.add(s, scale);
  });
  stats.join(scale);
  float cut[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    cut[r] = tile.row(r) >= dense_from ? -INFINITY : stats.top[r] + log2f(threshold * stats.sum[r]) / scale;
  }

  MaskWriter mask(p, cta.head, tile);
  tile.template for_tiles<kGroups == 1>([&](int t, const float(&s)[32]) {
    std::uint32_t bits[2][2] = {};
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if (s[i] > cut[i % 4 / 2]) bits[i % 4 / 2][i / 16] |= 1u << (i / 4 % 4 * 8 + i % 2);
    }
    mask.write(t, mask.join(t, bits));
  });
  mask.fill_empty();
  mask.finish(tile);
}

template <int kDim, int kGroups>
void launch(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  const RowRule rule = row_rule(p.select);
  launch_early("gate_select", gate_threshold_kernel<kDim, kGroups>,
               dim3(static_cast<unsigned>(ctas_for<kGroups>(p))), 128 * kGroups + 32,
               static_cast<int>(sizeof(Shared<kDim, kGroups>)), stream, maps, p,
               static_cast<float>(rule.value), rule.dense_from);
}

}  // namespace

/// Two row tiles a CTA read the keys half as often, where that leaves CTAs enough.
template <int kDim>
void launch_gate_threshold(const GateSelectMaps& maps, const GateSelectParams& p, CUstream_st* stream) {
  (ctas_for<2>(p) >= 256 ? launch<kDim, 2> : launch<kDim, 1>)(maps, p, stream);
}

template void launch_gate_threshold<64>(const GateSelectMaps&, const GateSelectParams&, CUstream_st*);
template void launch_gate_threshold<128>(const GateSelectMaps&, const GateSelectParams&, CUstream_st*);

}  // namespace seer::cuda
