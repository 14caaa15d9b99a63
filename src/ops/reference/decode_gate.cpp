#include "ops/reference/decode_gate.h"

#include <algorithm>
#include <cmath>

#include "ops/reference/gate.h"

namespace seer::reference {
namespace {

/// y[c] = sum_i x[i] w[i, c], then the norm and the rotation; one head.
std::vector<double> head_vector(std::span<const double> x, const float* w, const float* norm, int dim,
                                std::span<const float> cos, std::span<const float> sin) {
  std::vector<double> y(static_cast<std::size_t>(dim), 0.0), out(y.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    for (std::size_t c = 0; c < y.size(); ++c) y[c] += x[i] * w[i * y.size() + c];
  if (norm != nullptr) {
    double squares = 0;
    for (const double value : y) squares += value * value;
    const double root = std::sqrt(squares / dim + kDecodeGateEps);
    for (std::size_t c = 0; c < y.size(); ++c) y[c] = y[c] / root * norm[c];
  }
  const std::size_t half = y.size() / 2;
  for (std::size_t c = 0; c < half; ++c) {
    out[c] = y[c] * cos[c] - y[c + half] * sin[c];
    out[c + half] = y[c + half] * cos[c] + y[c] * sin[c];
  }
  return out;
}

void append(std::vector<double>& all, const std::vector<double>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

std::vector<double> decode_gate_query(const DecodeGateParams& gate, std::span<const float> q,
                                      std::span<const float> cos, std::span<const float> sin) {
  const std::size_t inner = q.size() / static_cast<std::size_t>(gate.num_kv_heads);
  std::vector<double> out;
  for (std::size_t g = 0; g < static_cast<std::size_t>(gate.num_kv_heads); ++g) {
    const std::vector<double> x(q.begin() + static_cast<std::ptrdiff_t>(g * inner),
                                q.begin() + static_cast<std::ptrdiff_t>((g + 1) * inner));
    append(out, head_vector(x, gate.q_weight + g * inner * static_cast<std::size_t>(gate.dim), gate.q_norm,
                            gate.dim, cos, sin));
  }
  return out;
}

std::vector<double> decode_gate_key(const DecodeGateParams& gate, std::span<const float> k,
                                    std::span<const float> cos, std::span<const float> sin) {
  const std::vector<double> pooled =
      block_pool(k, kBlockSize, gate.num_kv_heads, gate.head_dim, gate.k_pools);
  const std::size_t inner = pooled.size() / static_cast<std::size_t>(gate.num_kv_heads);
  std::vector<double> out;
  for (std::size_t g = 0; g < static_cast<std::size_t>(gate.num_kv_heads); ++g)
    append(out, head_vector(std::span(pooled).subspan(g * inner, inner),
                            gate.k_weight + g * inner * static_cast<std::size_t>(gate.dim), gate.k_norm,
                            gate.dim, cos, sin));
  return out;
}

std::vector<double> decode_gate_probabilities(std::span<const double> query, std::span<const double> keys,
                                              int num_kv_heads, int dim, std::int64_t num_blocks) {
  const std::size_t heads = static_cast<std::size_t>(num_kv_heads), size = static_cast<std::size_t>(dim);
  const std::size_t full = keys.size() / (heads * size);
  std::vector<double> out;
  for (std::size_t g = 0; g < heads; ++g) {
    std::vector<double> scores(static_cast<std::size_t>(num_blocks), 0.0);
    for (std::size_t j = 0; j < full; ++j)
      for (std::size_t d = 0; d < size; ++d)
        scores[j] += query[g * size + d] * keys[(j * heads + g) * size + d] / std::sqrt(dim);
    const double most = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - most);
    for (const double score : scores) out.push_back(score / sum);
  }
  return out;
}

}  // namespace seer::reference
