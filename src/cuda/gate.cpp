#include "cuda/gate.h"

#include "core/check.h"
#include "cuda/gate_checks.h"
#include "cuda/gate_launch.h"

namespace seer::cuda {
void gate_project(const GateProjectParams& p, Stream stream) {
  check_hidden_size("gate_project", p.out_dim);
  SEER_CHECK(p.x_heads > 0 && p.heads > 0 && p.heads % p.x_heads == 0,
             "gate_project: heads must be a multiple of x_heads, got {} and {}", p.heads, p.x_heads);
  if (p.w == nullptr) {
    SEER_CHECK(
        p.in_dim == p.out_dim && p.x_heads == p.heads,
        "gate_project: without weights in_dim and x_heads must be out_dim {} and heads {}, got {} and {}",
        p.out_dim, p.heads, p.in_dim, p.x_heads);
  } else {
    check_pointer("gate_project", "w", p.w);
    SEER_CHECK(p.in_dim > 0 && p.in_dim <= 512 && p.in_dim % 64 == 0,
               "gate_project: in_dim must be a multiple of 64 up to 512, got {}", p.in_dim);
  }
  check_pointer("gate_project", "x", p.x);
  check_pointer("gate_project", "cos", p.cos);
  check_pointer("gate_project", "sin", p.sin);
  check_pointer("gate_project", "out", p.out);
  SEER_CHECK(p.out_head_stride % 8 == 0,
             "gate_project: out_head_stride must be a multiple of 8 elements, got {}", p.out_head_stride);
  SEER_CHECK(p.n >= 0, "gate_project: n must not be negative, got {}", p.n);
  if (p.n > 0) launch_gate_project(p, static_cast<CUstream_st*>(stream));
}

void gate_select(const GateSelectParams& p, Stream stream) {
  check_hidden_size("gate_select", p.dim);
  SEER_CHECK(p.k_heads > 0 && p.heads > 0 && p.heads % p.k_heads == 0,
             "gate_select: heads must be a multiple of k_heads, got {} and {}", p.heads, p.k_heads);
  check_pointer("gate_select", "q", p.q);
  check_pointer("gate_select", "k", p.k);
  SEER_CHECK(p.q_head_stride % 8 == 0 && p.k_head_stride % 8 == 0,
             "gate_select: head strides must be multiples of 8 elements, got {} and {}", p.q_head_stride,
             p.k_head_stride);
  check_rule("gate_select", p.select);
  check_mask("gate_select", p.first_row, p.rows, p.mask, p.mask_words);
  check_row_length("gate_select", p.first_row + p.rows);
  if (p.rows == 0) return;
  const auto launch = p.dim == 128  ? launch_gate_select<128>
                      : p.dim == 64 ? launch_gate_select<64>
                                    : launch_gate_select<0>;
  launch(p, static_cast<CUstream_st*>(stream));
}

}  // namespace seer::cuda
