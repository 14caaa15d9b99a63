#include "cuda/gate.h"

#include "core/check.h"
#include "cuda/argument_checks.h"
#include "cuda/gate_launch.h"
#include "cuda/tensor_map.h"

namespace seer::cuda {
void gate_project(const GateProjectParams& p, Stream stream) {
  check_hidden_size("gate_project", p.out_dim);
  SEER_CHECK(p.x_heads > 0 && p.heads > 0 && p.heads % p.x_heads == 0,
             "gate_project: heads must be a multiple of x_heads, got {} and {}", p.heads, p.x_heads);
  check_pointer("gate_project", "w", p.w);
  SEER_CHECK(p.in_dim > 0 && p.in_dim <= 512 && p.in_dim % 64 == 0,
             "gate_project: in_dim must be a multiple of 64 up to 512, got {}", p.in_dim);
  check_pointer("gate_project", "x", p.x);
  check_pointer("gate_project", "cos", p.cos);
  check_pointer("gate_project", "sin", p.sin);
  check_pointer("gate_project", "out", p.out);
  SEER_CHECK(p.out_head_stride % 8 == 0,
             "gate_project: out_head_stride must be a multiple of 8 elements, got {}", p.out_head_stride);
  SEER_CHECK(p.n >= 0, "gate_project: n must not be negative, got {}", p.n);
  if (p.n == 0) return;
  if (p.out_dim != 64 && p.out_dim != 128) return launch_gate_project(p, static_cast<CUstream_st*>(stream));
  const std::int64_t w_rows = std::int64_t{p.heads} * p.in_dim,
                     x_panels = std::int64_t{p.x_heads} * p.in_dim / 64;
  const GateProjectMaps maps = {
      .x = panel_map("gate_project's x", DType::kBF16, p.x, 64, p.n, x_panels * 64, x_panels, 64, 1, 0),
      .w = panel_map("gate_project's w", DType::kBF16, p.w, p.out_dim, w_rows, p.out_dim, 1, 8, 1, 0)};
  const auto launch = p.out_dim == 128 ? launch_gate_project<128> : launch_gate_project<64>;
  launch(maps, p, static_cast<CUstream_st*>(stream));
}

void gate_select(const GateSelectParams& p, Stream stream) {
  check_hidden_size("gate_select", p.dim);
  SEER_CHECK(p.k_heads > 0 && p.heads > 0 && p.heads % p.k_heads == 0,
             "gate_select: heads must be a multiple of k_heads, got {} and {}", p.heads, p.k_heads);
  check_pointer("gate_select", "q", p.q);
  check_pointer("gate_select", "k", p.k);
  SEER_CHECK(p.q_head_stride % 8 == 0 && p.k_head_stride % 8 == 0 && p.q_row_stride % 8 == 0,
             "gate_select: strides must be multiples of 8 elements, got q {} and {}, k {}", p.q_head_stride,
             p.q_row_stride, p.k_head_stride);
  check_rule("gate_select", p.select);
  check_mask("gate_select", p.first_row, p.rows, p.mask, p.mask_words);
  check_row_length("gate_select", p.first_row + p.rows);
  if (p.rows == 0) return;
  // gate_cut.cu has 64 rows a CTA: too few of them would leave multiprocessors without work.
  constexpr std::int64_t kEnoughTiles = 132;
  const bool cuts = p.select.rule != SelectRule::kThreshold;
  const bool is_small = cuts && (p.rows + 63) / 64 * p.heads < kEnoughTiles;
  if (is_small || (p.dim != 64 && p.dim != 128))
    return launch_gate_select(p, static_cast<CUstream_st*>(stream));
  const GateSelectMaps maps = {.q = panel_map("gate_select's q", DType::kBF16, p.q, p.dim, p.rows,
                                              p.q_row_stride, p.heads, p.q_head_stride, 1, 0),
                               .k = panel_map("gate_select's k", DType::kBF16, p.k, p.dim,
                                              p.first_row + p.rows, p.dim, p.k_heads, p.k_head_stride, 1, 0)};
  const auto launch = p.dim == 128 ? (cuts ? launch_gate_cut<128> : launch_gate_threshold<128>)
                                   : (cuts ? launch_gate_cut<64> : launch_gate_threshold<64>);
  launch(maps, p, static_cast<CUstream_st*>(stream));
}

}  // namespace seer::cuda
