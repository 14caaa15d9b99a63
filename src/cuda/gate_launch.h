// Launchers of the gate's kernels; the public functions have checked the parameters. Internal to src/cuda.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/gate.h"
#include "cuda/rope_pool.h"
#include "cuda/select.h"

struct CUstream_st;

namespace seer::cuda {

void launch_rope_table(const double* inv_freq, int dim, double attention_factor, std::int64_t first,
                       std::int64_t step, std::int64_t count, float* cos, float* sin, CUstream_st* stream);
void launch_rope_pool(const RopePoolParams& params, CUstream_st* stream);
void launch_rope_store(const RopeStoreParams& params, CUstream_st* stream);

/// Any output size.
void launch_gate_project(const GateProjectParams& params, CUstream_st* stream);
/// Output sizes 64 and 128, by wgmma. Maps: panels of 64 columns of x [n][x_heads * in_dim / 64], and the
/// weights [heads * in_dim][out_dim].
struct GateProjectMaps {
  CUtensorMap x, w;
};
template <int kDim>
void launch_gate_project(const GateProjectMaps& maps, const GateProjectParams& params, CUstream_st* stream);

/// Any hidden size and rule; the best for few rows.
void launch_gate_select(const GateSelectParams& params, CUstream_st* stream);
/// Hidden sizes 64 and 128, by wgmma: kThreshold, and the rules with a cut.
struct GateSelectMaps {
  CUtensorMap q, k;
};
template <int kDim>
void launch_gate_threshold(const GateSelectMaps& maps, const GateSelectParams& params, CUstream_st* stream);
template <int kDim>
void launch_gate_cut(const GateSelectMaps& maps, const GateSelectParams& params, CUstream_st* stream);

void launch_select_blocks(const SelectBlocksParams& params, CUstream_st* stream);
/// `k` blocks a row, rows from `dense_from` on all.
struct BaselineMask {
  int heads = 0;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t k = 0;
  std::int64_t dense_from = 0;
  std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;
  std::uint64_t* selected_blocks = nullptr;
};
void launch_select_sink_local(const BaselineMask& mask, CUstream_st* stream);
void launch_select_random(const BaselineMask& mask, std::uint64_t seed, int layer, CUstream_st* stream);
void launch_threshold_for_density(const float* probabilities, std::int64_t stride, int heads,
                                  std::int64_t first_row, std::int64_t rows, double density,
                                  double* threshold, void* workspace, CUstream_st* stream);

}  // namespace seer::cuda
