#include "ops/reference/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace seer::reference {

std::vector<double> block_pool(std::span<const float> x, std::int64_t num_tokens, int heads, int dim,
                               unsigned pools) {
  std::vector<double> out;
  for (std::int64_t first = 0; first < num_tokens; first += kBlockSize) {
    const std::int64_t last = std::min(first + kBlockSize, num_tokens);
    for (int head = 0; head < heads; ++head) {
      for (const unsigned pool : {kPoolMax, kPoolMin, kPoolAvg}) {
        if ((pools & pool) == 0) continue;
        for (int d = 0; d < dim; ++d) {
          double max = -INFINITY, min = INFINITY, sum = 0;
          for (std::int64_t t = first; t < last; ++t) {
            const double value = x[static_cast<std::size_t>((t * heads + head) * dim + d)];
            max = std::max(max, value), min = std::min(min, value), sum += value;
          }
          out.push_back(pool == kPoolMax   ? max
                        : pool == kPoolMin ? min
                                           : sum / static_cast<double>(last - first));
        }
      }
    }
  }
  return out;
}

std::vector<double> gate_project(std::span<const float> x, std::int64_t n, int x_heads, int in_dim,
                                 std::span<const float> w, int heads, int out_dim) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < n; ++i) {
    for (int head = 0; head < heads; ++head) {
      const float* row = x.data() + (i * x_heads + head / (heads / x_heads)) * in_dim;
      for (int c = 0; c < out_dim; ++c) {
        double sum = 0;
        for (int k = 0; k < in_dim; ++k)
          sum += static_cast<double>(row[k]) *
                 w[static_cast<std::size_t>((std::int64_t{head} * in_dim + k) * out_dim + c)];
        out.push_back(sum);
      }
    }
  }
  return out;
}

std::vector<double> gate_scores(std::span<const float> q, std::int64_t rows, std::int64_t first_row,
                                int heads, std::span<const float> k, int k_heads, int dim) {
  std::vector<double> out;
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < first_row + rows; ++j) {
        double sum = 0;
        for (int d = 0; d < dim; ++d)
          sum += static_cast<double>(q[static_cast<std::size_t>((i * heads + head) * dim + d)]) *
                 k[static_cast<std::size_t>((j * k_heads + head / (heads / k_heads)) * dim + d)];
        out.push_back(j <= first_row + i ? sum / std::sqrt(static_cast<double>(dim)) : -INFINITY);
      }
    }
  }
  return out;
}

std::vector<double> causal_softmax(std::span<const float> scores, int heads, std::int64_t rows,
                                   std::int64_t first_row) {
  const std::int64_t n = first_row + rows;
  std::vector<double> out;
  for (std::int64_t row = 0; row < heads * rows; ++row) {
    const float* s = scores.data() + row * n;
    const std::int64_t causal = first_row + row % rows + 1;
    const double most = *std::max_element(s, s + causal);
    double sum = 0;
    for (std::int64_t j = 0; j < causal; ++j) sum += std::exp(s[j] - most);
    for (std::int64_t j = 0; j < n; ++j) out.push_back(j < causal ? std::exp(s[j] - most) / sum : 0.0);
  }
  return out;
}

KlLoss gate_kl_loss(std::span<const float> scores, std::span<const float> target, int heads, std::int64_t n,
                    std::int64_t skip_rows, double weight_per_row) {
  KlLoss result;
  const std::vector<double> p = causal_softmax(scores, heads, n, 0);
  for (std::int64_t row = 0; row < heads * n; ++row) {
    const bool skipped = row % n < skip_rows;
    double mass = 0;
    for (std::int64_t j = 0; j <= row % n; ++j) mass += target[static_cast<std::size_t>(row * n + j)];
    for (std::int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<std::size_t>(row * n + j);
      const bool counts = !skipped && j <= row % n;
      const double t = target[at];
      if (counts && t > 0) result.loss += weight_per_row * t * (std::log(t) - std::log(p[at]));
      result.d_scores.push_back(counts ? weight_per_row * (mass * p[at] - t) : 0.0);
    }
  }
  return result;
}

}  // namespace seer::reference
