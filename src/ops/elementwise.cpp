#include "ops/elementwise.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "cpu/elementwise/kernels.h"
#include "cpu/linear/kernels.h"

namespace seer {
namespace {

/// Elements below which one thread is faster than starting the others.
constexpr std::int64_t kSmallWork = 32 << 10;

/// body(begin, end) over ranges of rows of `size` elements each.
template <class Body>
void for_rows(const Context& context, std::int64_t rows, std::int64_t size, const Body& body) {
  if (rows * size < kSmallWork) {
    if (rows > 0) body(0, rows);
    return;
  }
  context.parallel_ranges(rows, 1, [&](std::int64_t begin, std::int64_t end, int) { body(begin, end); });
}

}  // namespace

void embedding(const Context& context, const MatrixView& table, const std::int32_t* ids,
               std::int64_t num_tokens, float* out) {
  SEER_CHECK(table.dtype == DType::kF32 || table.dtype == DType::kF16 || table.dtype == DType::kBF16,
             "embedding: the table must be F32, F16 or BF16, found {}", name_of(table.dtype));
  for (std::int64_t t = 0; t < num_tokens; ++t)
    SEER_CHECK(ids[t] >= 0 && ids[t] < table.rows, "embedding: token {} has id {}, outside [0, {})", t,
               ids[t], table.rows);
  const cpu::LinearKernels& kernels = cpu::linear_kernels(context.isa());
  const std::int64_t row_bytes = table.cols * static_cast<std::int64_t>(size_of(table.dtype));
  for_rows(context, num_tokens, table.cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      kernels.widen(table.dtype, static_cast<const std::byte*>(table.data) + ids[t] * row_bytes,
                    out + t * table.cols, table.cols);
  });
}

void rms_norm(const Context& context, const float* x, const float* weight, float eps, std::int64_t rows,
              std::int64_t size, std::int64_t stride, float* out) {
  const cpu::ElementwiseKernels& kernels = cpu::elementwise_kernels(context.isa());
  for_rows(context, rows, size, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      kernels.rms_norm(x + r * stride, weight, eps, size, out + r * stride);
  });
}

void apply_rope(const Context& context, const float* x, const float* cos, const float* sin,
                std::int64_t num_tokens, int heads, int dim, std::int64_t x_stride, float* out,
                std::int64_t out_stride) {
  SEER_CHECK(dim > 0 && dim % 2 == 0, "apply_rope: the head dimension must be even, found {}", dim);
  const cpu::ElementwiseKernels& kernels = cpu::elementwise_kernels(context.isa());
  const std::int64_t half = dim / 2;
  const std::int64_t size = static_cast<std::int64_t>(heads) * dim;
  for_rows(context, num_tokens, size, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      kernels.rope(x + t * x_stride, cos + t * half, sin + t * half, heads, dim, out + t * out_stride);
  });
}

void silu_multiply(const Context& context, float* gate, const float* up, std::int64_t count) {
  const cpu::ElementwiseKernels& kernels = cpu::elementwise_kernels(context.isa());
  constexpr std::int64_t kRun = 1024;
  for_rows(context, (count + kRun - 1) / kRun, kRun, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kRun;
    kernels.silu_multiply(gate + first, up + first, std::min(end * kRun, count) - first);
  });
}

void cross_entropy(const Context& context, const float* logits, std::int64_t rows, std::int64_t vocab,
                   const std::int32_t* targets, float* nll) {
  for (std::int64_t r = 0; r < rows; ++r)
    SEER_CHECK(targets[r] >= 0 && targets[r] < vocab, "cross_entropy: row {} has target {}, outside [0, {})",
               r, targets[r], vocab);
  const cpu::ElementwiseKernels& kernels = cpu::elementwise_kernels(context.isa());
  for_rows(context, rows, vocab, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* row = logits + r * vocab;
      nll[r] = static_cast<float>(kernels.log_sum_exp(row, vocab) - static_cast<double>(row[targets[r]]));
    }
  });
}

std::int32_t argmax(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    SEER_CHECK(!std::isnan(logits[i]), "the model's logits hold NaN: weights or activations overflow");
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<std::int32_t>(best);
}

}  // namespace seer
