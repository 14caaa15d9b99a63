#include "train/gate_gradient.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "ops/elementwise.h"
#include "ops/gate.h"
#include "ops/linear.h"

namespace seer {
namespace {

/// Rows of the block map that one product covers: with it the products skip most of the upper triangle.
constexpr std::int64_t kStripe = 64;

/// The reference's gate_loss_scale.
constexpr double kReferenceLossScale = 10.0;

/// The transposed rotation, in place: dx = (dy1 cos + dy2 sin, dy2 cos - dy1 sin).
void rope_backward(const float* cos, const float* sin, std::int64_t n, int dim, float* x) {
  const int half = dim / 2;
  for (std::int64_t i = 0; i < n; ++i) {
    float* low = x + i * dim;
    float* high = low + half;
    for (int d = 0; d < half; ++d) {
      const float c = cos[i * half + d], s = sin[i * half + d], a = low[d], b = high[d];
      low[d] = a * c + b * s;
      high[d] = b * c - a * s;
    }
  }
}

}  // namespace

GateShape::GateShape(const GateConfig& gate, const ModelConfig& model)
    : num_heads(model.num_heads),
      num_kv_heads(model.num_kv_heads),
      dim(gate.gate_hidden_size),
      q_width(pool_count(gate.q_pools) * model.head_dim),
      k_width(pool_count(gate.k_pools) * model.head_dim),
      has_q_linear(gate.has_q_linear(model.head_dim)) {}

RowWeights::RowWeights(GateLoss loss, std::int64_t n, int num_heads) {
  if (loss == GateLoss::kRow) {
    skip_rows = 0;
    weight = 1.0 / static_cast<double>(num_heads * n);
  } else {
    skip_rows = n / 4;
    weight = kReferenceLossScale / static_cast<double>(num_heads * (n - n / 4) * n);
  }
}

void GateGradient::reserve(std::int64_t n) {
  for (Buffer<float>* buffer : {&q_, &k_, &d_q_, &d_k_}) buffer->reserve_discard(n * shape_.dim);
  for (Buffer<float>* buffer : {&scores_, &target_}) buffer->reserve_discard(n * n);
}

void GateGradient::project_keys(const GateSample& sample, int kv_head, const GateLayer& weights,
                                std::int64_t index) {
  const float* k = sample.k + kv_head * sample.n * shape_.k_width;
  sgemm(false, false, sample.n, shape_.dim, shape_.k_width, 1.0f, k, shape_.k_width,
        weights.k_weight.data() + index * shape_.k_matrix(), shape_.dim, 0.0f, k_.data(), shape_.dim);
  apply_rope(Context(1), k_.data(), sample.cos, sample.sin, sample.n, 1, shape_.dim, shape_.dim, k_.data(),
             shape_.dim);
}

void GateGradient::project_queries(const GateSample& sample, const GateLayer& weights, int head) {
  const float* q = sample.q + head * sample.n * shape_.q_width;
  if (shape_.has_q_linear) {
    sgemm(false, false, sample.n, shape_.dim, shape_.q_width, 1.0f, q, shape_.q_width,
          weights.q_weight.data() + head * shape_.q_matrix(), shape_.dim, 0.0f, q_.data(), shape_.dim);
    q = q_.data();
  }
  apply_rope(Context(1), q, sample.cos, sample.sin, sample.n, 1, shape_.dim, shape_.dim, q_.data(),
             shape_.dim);
}

void GateGradient::score(const GateSample& sample, int head) {
  const std::int64_t n = sample.n;
  const int dim = shape_.dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (std::int64_t row = 0; row < n; row += kStripe) {
    const std::int64_t end = std::min(row + kStripe, n);
    sgemm(false, true, end - row, end, dim, scale, q_.data() + row * dim, dim, k_.data(), dim, 0.0f,
          scores_.data() + row * n, n);
  }
  const Float16* packed = sample.target + head * triangle(n);
  for (std::int64_t row = 0; row < n; ++row)
    widen_to_float(DType::kF16, packed + triangle(row), target_.data() + row * n, row + 1);
}

void GateGradient::forward(const GateSample& sample, int kv_head, const GateLayer& weights,
                           const std::function<void(int, float*, const float*)>& visit) {
  reserve(sample.n);
  if (shape_.has_q_linear) project_keys(sample, kv_head, weights, kv_head);
  for (int head = kv_head * shape_.group(); head < (kv_head + 1) * shape_.group(); ++head) {
    if (!shape_.has_q_linear) project_keys(sample, kv_head, weights, head);
    project_queries(sample, weights, head);
    score(sample, head);
    visit(head, scores_.data(), target_.data());
  }
}

double GateGradient::backward(const GateSample& sample, int kv_head, const GateLayer& weights, GateLoss loss,
                              double share, float* d_k, float* d_q) {
  const std::int64_t n = sample.n;
  const int dim = shape_.dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const RowWeights rows(loss, n, shape_.num_heads);
  const Context context(1);
  double total = 0;

  const auto add_key_gradient = [&](float* d_matrix) {
    rope_backward(sample.cos, sample.sin, n, dim, d_k_.data());
    sgemm(true, false, shape_.k_width, dim, n, static_cast<float>(share),
          sample.k + kv_head * n * shape_.k_width, shape_.k_width, d_k_.data(), dim, 1.0f, d_matrix, dim);
  };
  const auto clear_key_gradient = [&] { std::fill_n(d_k_.data(), n * dim, 0.0f); };

  forward(sample, kv_head, weights, [&](int head, float* scores, const float* target) {
    const int in_group = head - kv_head * shape_.group();
    total += gate_kl_loss(context, scores, target, 1, n, n, rows.skip_rows, rows.weight, scores);
    if (in_group == 0 || !shape_.has_q_linear) clear_key_gradient();
    for (std::int64_t row = 0; row < n; row += kStripe) {
      const std::int64_t end = std::min(row + kStripe, n);
      sgemm(true, false, end, dim, end - row, scale, scores + row * n, n, q_.data() + row * dim, dim, 1.0f,
            d_k_.data(), dim);
      if (shape_.has_q_linear)
        sgemm(false, false, end - row, dim, end, scale, scores + row * n, n, k_.data(), dim, 0.0f,
              d_q_.data() + row * dim, dim);
    }
    if (shape_.has_q_linear) {
      rope_backward(sample.cos, sample.sin, n, dim, d_q_.data());
      sgemm(true, false, shape_.q_width, dim, n, static_cast<float>(share),
            sample.q + head * n * shape_.q_width, shape_.q_width, d_q_.data(), dim, 1.0f,
            d_q + in_group * shape_.q_matrix(), dim);
    } else {
      add_key_gradient(d_k + in_group * shape_.k_matrix());
    }
  });
  if (shape_.has_q_linear) add_key_gradient(d_k);
  return total;
}

std::vector<GateGradient> make_workers(const Context& context, const GateShape& shape) {
  std::vector<GateGradient> workers;
  for (int thread = 0; thread < context.num_threads(); ++thread) workers.emplace_back(shape);
  return workers;
}

SingleThreadedProducts::SingleThreadedProducts() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }

SingleThreadedProducts::~SingleThreadedProducts() { omp_set_num_threads(before_); }

}  // namespace seer
