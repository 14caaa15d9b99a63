#include "ops/linear.h"

#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <vector>

#include "core/buffer.h"
#include "core/check.h"
#include "cpu/linear/kernels.h"

namespace seer {
namespace {

/// Up to this many rows of x the weights are read as they are, kGemvMaxRows at a time; above, a product of
/// matrices is faster in spite of widening.
constexpr std::int64_t kGemvRows = 4 * cpu::kGemvMaxRows;
/// Elements of a widened slice of weights: 16 MiB.
constexpr std::int64_t kPanelElements = 4 << 20;
/// Rows of weights that kernels take at once: parts are cut at multiples.
constexpr std::int64_t kRowGrain = 8;
/// Weights below which a second thread costs more than it saves.
constexpr std::int64_t kSmallGemv = 32 << 10;

void check(const LinearParams& p) {
  SEER_CHECK(p.w.dtype == DType::kF32 || p.w.dtype == DType::kF16 || p.w.dtype == DType::kBF16,
             "linear: weights must be F32, F16 or BF16, found {}", name_of(p.w.dtype));
  SEER_CHECK(p.m >= 0 && p.w.rows > 0 && p.w.cols > 0,
             "linear: expected positive sizes, found {} rows of x and weights [{}, {}]", p.m, p.w.rows,
             p.w.cols);
  SEER_CHECK(p.m <= 1 || (p.x_stride >= p.w.cols && p.y_stride >= p.w.rows),
             "linear: rows of x and y are {} and {} apart, weights are [{}, {}]", p.x_stride, p.y_stride,
             p.w.rows, p.w.cols);
}

/// oneDNN's OpenMP team for the current scope.
class TeamSize {
 public:
  explicit TeamSize(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~TeamSize() { omp_set_num_threads(before_); }
  TeamSize(const TeamSize&) = delete;
  TeamSize& operator=(const TeamSize&) = delete;

 private:
  int before_;
};

/// Rows of weights [begin, end) of one product.
struct GemvItem {
  const LinearParams* params = nullptr;
  const float* x = nullptr;  // arranged
  std::int64_t begin = 0, end = 0;
};

void run_item(const cpu::LinearKernels& kernels, std::int64_t arranged_cols, const GemvItem& item) {
  const LinearParams& p = *item.params;
  const auto* w = static_cast<const std::byte*>(p.w.data) +
                  item.begin * p.w.cols * static_cast<std::int64_t>(size_of(p.w.dtype));
  for (std::int64_t row = 0; row < p.m; row += cpu::kGemvMaxRows) {
    kernels.gemv({.x = item.x + row * arranged_cols,
                  .m = static_cast<int>(std::min<std::int64_t>(cpu::kGemvMaxRows, p.m - row)),
                  .dtype = p.w.dtype,
                  .w = w,
                  .rows = item.end - item.begin,
                  .cols = p.w.cols,
                  .bias = p.bias == nullptr ? nullptr : p.bias + item.begin,
                  .y = p.y + row * p.y_stride + item.begin,
                  .y_stride = p.y_stride,
                  .add_to_y = p.add_to_y});
  }
}

/// Few rows of x: all products in one parallel region.
void gemv_many(const Context& context, const LinearParams* params, int count) {
  const cpu::LinearKernels& kernels = cpu::linear_kernels(context.isa());
  const auto padded = [&](const LinearParams& p) {
    return (p.w.cols + kernels.step - 1) / kernels.step * kernels.step;
  };
  std::int64_t elements = 0, arranged_size = 0;
  for (int i = 0; i < count; ++i) {
    elements += params[i].w.rows * params[i].w.cols;
    arranged_size += params[i].m * padded(params[i]);
  }
  Buffer<float> arranged(arranged_size);
  // The rows of all products, one after another, in as many parts as threads: a part reads memory in order.
  const std::int64_t parts = elements < kSmallGemv ? 1 : context.num_threads();
  std::vector<GemvItem> items;
  std::vector<std::size_t> part_begin = {0};
  std::int64_t done = 0;
  float* next = arranged.data();
  for (int i = 0; i < count; ++i) {
    const LinearParams& p = params[i];
    const bool same_x = i > 0 && p.x == params[i - 1].x && p.x_stride == params[i - 1].x_stride &&
                        p.m == params[i - 1].m && p.w.cols == params[i - 1].w.cols &&
                        p.w.dtype == params[i - 1].w.dtype;
    const float* x = same_x ? items.back().x : next;
    for (std::int64_t row = 0; row < p.m && !same_x; row += cpu::kGemvMaxRows) {
      const std::int64_t rows = std::min<std::int64_t>(cpu::kGemvMaxRows, p.m - row);
      kernels.arrange(p.w.dtype, p.x + row * p.x_stride, p.x_stride, static_cast<int>(rows), p.w.cols, next);
      next += rows * padded(p);
    }
    for (std::int64_t begin = 0; begin < p.w.rows;) {
      const std::int64_t part_end = elements * static_cast<std::int64_t>(part_begin.size()) / parts;
      const std::int64_t wanted = std::max<std::int64_t>(1, (part_end - done + p.w.cols - 1) / p.w.cols);
      const std::int64_t end = std::min(p.w.rows, begin + (wanted + kRowGrain - 1) / kRowGrain * kRowGrain);
      items.push_back({&p, x, begin, end});
      done += (end - begin) * p.w.cols;
      begin = end;
      if (done >= part_end) part_begin.push_back(items.size());
    }
  }
  context.parallel_for(static_cast<std::int64_t>(part_begin.size()) - 1, [&](std::int64_t part, int) {
    const auto at = static_cast<std::size_t>(part);
    for (std::size_t i = part_begin[at]; i < part_begin[at + 1]; ++i)
      run_item(kernels, padded(*items[i].params), items[i]);
  });
}

/// oneDNN keeps the primitives of shapes that it has seen: some 30 KB each, and prompts of all lengths make
/// ever new ones. A model's shapes with a few numbers of rows are enough; by default it keeps 1024.
void limit_cached_products() {
  constexpr int kProducts = 64;
  static const dnnl_status_t status = dnnl_set_primitive_cache_capacity(kProducts);
  SEER_CHECK(status == dnnl_success, "linear: oneDNN refused a cache of {} products", kProducts);
}

/// Many rows of x, products of bf16: x is rounded, weights are used as stored, sums are float32. On CPUs with
/// AMX oneDNN uses it.
void gemm_bf16(const Context& context, const LinearParams& p) {
  const TeamSize team(context.num_threads());
  const std::int64_t cols = p.w.cols;
  Buffer<BFloat16> x(p.m * cols);
  context.parallel_ranges(p.m, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t k = 0; k < cols; ++k) x[row * cols + k] = to_bfloat16(p.x[row * p.x_stride + k]);
  });
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x_desc({p.m, cols}, memory::data_type::bf16, memory::dims{cols, 1});
  const memory::desc w_desc({cols, p.w.rows}, memory::data_type::bf16, memory::dims{1, cols});
  const memory::desc y_desc({p.m, p.w.rows}, memory::data_type::f32, memory::dims{p.y_stride, 1});
  dnnl::primitive_attr attributes;
  if (p.add_to_y) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  limit_cached_products();
  const dnnl::matmul product({{x_desc, w_desc, y_desc}, attributes, engine});
  product.execute(stream, {{DNNL_ARG_SRC, memory(x_desc, engine, x.data())},
                           {DNNL_ARG_WEIGHTS, memory(w_desc, engine, const_cast<void*>(p.w.data))},
                           {DNNL_ARG_DST, memory(y_desc, engine, p.y)}});
  stream.wait();
}

/// Many rows of x: slices of the weights, widened, one matrix product each.
void gemm_f32(const Context& context, const LinearParams& p) {
  const cpu::LinearKernels& kernels = cpu::linear_kernels(context.isa());
  const TeamSize team(context.num_threads());
  // Kept by the thread: new pages for every product would cost more than filling them.
  thread_local Buffer<float> panel;
  const std::int64_t panel_rows =
      p.w.dtype == DType::kF32 ? p.w.rows : std::clamp<std::int64_t>(kPanelElements / p.w.cols, 1, p.w.rows);
  const float beta = p.add_to_y ? 1.0f : 0.0f;
  for (std::int64_t begin = 0; begin < p.w.rows; begin += panel_rows) {
    const std::int64_t rows = std::min(panel_rows, p.w.rows - begin);
    const auto* stored = static_cast<const std::byte*>(p.w.data) +
                         begin * p.w.cols * static_cast<std::int64_t>(size_of(p.w.dtype));
    const float* weights = nullptr;
    if (p.w.dtype == DType::kF32) {
      weights = reinterpret_cast<const float*>(stored);
    } else {
      panel.reserve_discard(rows * p.w.cols);
      float* widened = panel.data();
      weights = widened;
      const auto size = static_cast<std::int64_t>(size_of(p.w.dtype));
      context.parallel_ranges(rows * p.w.cols, 4096, [&](std::int64_t from, std::int64_t to, int) {
        kernels.widen(p.w.dtype, stored + from * size, widened + from, to - from);
      });
    }
    sgemm(false, true, p.m, rows, p.w.cols, 1.0f, p.x, p.x_stride, weights, p.w.cols, beta, p.y + begin,
          p.y_stride);
  }
}

void gemm(const Context& context, const LinearParams& p) {
  if (p.allow_bf16 && p.w.dtype == DType::kBF16 && context.isa() >= CpuIsa::kAvx512Bf16)
    gemm_bf16(context, p);
  else
    gemm_f32(context, p);
  if (p.bias == nullptr) return;
  context.parallel_ranges(p.m, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t j = 0; j < p.w.rows; ++j) p.y[row * p.y_stride + j] += p.bias[j];
  });
}

}  // namespace

void linear(const Context& context, const LinearParams& params) { linear_many(context, &params, 1); }

void linear_many(const Context& context, const LinearParams* params, int count) {
  bool few_rows = true;
  for (int i = 0; i < count; ++i) {
    check(params[i]);
    few_rows = few_rows && params[i].m <= kGemvRows;
  }
  if (few_rows) return gemv_many(context, params, count);
  for (int i = 0; i < count; ++i) {
    if (params[i].m > kGemvRows)
      gemm(context, params[i]);
    else
      gemv_many(context, &params[i], 1);
  }
}

void sgemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
           const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
           std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  const dnnl_status_t status =
      dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  SEER_CHECK(status == dnnl_success, "sgemm: oneDNN refused a product of [{}, {}] and [{}, {}] (status {})",
             m, k, k, n, static_cast<int>(status));
}

}  // namespace seer
