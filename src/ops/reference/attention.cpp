#include "ops/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace seer::reference {
namespace {

double element(DType dtype, const std::byte* tile, std::int64_t f32_index, std::int64_t bf16_index) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(tile)[f32_index];
  return to_float(reinterpret_cast<const BFloat16*>(tile)[bf16_index]);
}

/// One KV head's tokens as float64 rows.
struct KeysAndValues {
  std::vector<double> keys, values;  // [length][head_dim]
  std::int64_t head_dim = 0;

  KeysAndValues(const PagedKv& kv, int kv_head, std::int64_t length) : head_dim(kv.head_dim) {
    for (std::int64_t position = 0; position < length; ++position) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        keys.push_back(key(kv, kv_head, position, d));
        values.push_back(value(kv, kv_head, position, d));
      }
    }
  }
  const double* key_row(std::int64_t position) const { return keys.data() + position * head_dim; }
  const double* value_row(std::int64_t position) const { return values.data() + position * head_dim; }
};

/// Scaled scores of one query with the keys of the selected blocks up to `last_position`; the others are
/// -infinity.
template <class Selected>
std::vector<double> scores_of(const KeysAndValues& kv, const float* q, double scale,
                              std::int64_t last_position, const Selected& selected) {
  std::vector<double> scores(static_cast<std::size_t>(last_position + 1),
                             -std::numeric_limits<double>::infinity());
  for (std::int64_t position = 0; position <= last_position; ++position) {
    if (!selected(position / kBlockSize)) continue;
    const double* row = kv.key_row(position);
    double dot = 0;
    for (std::int64_t d = 0; d < kv.head_dim; ++d) dot += q[d] * row[d];
    scores[static_cast<std::size_t>(position)] = dot * scale;
  }
  return scores;
}

/// Replaces scores by probabilities; returns the log-sum-exp. Nothing selected: zeros and -infinity.
double softmax(std::vector<double>& scores) {
  const double most = *std::max_element(scores.begin(), scores.end());
  if (std::isinf(most) && most < 0) {
    std::fill(scores.begin(), scores.end(), 0.0);
    return most;
  }
  double sum = 0;
  for (double& x : scores) sum += x = std::exp(x - most);
  for (double& x : scores) x /= sum;
  return most + std::log(sum);
}

void weighted_values(const KeysAndValues& kv, const std::vector<double>& weights, double* out) {
  std::fill_n(out, kv.head_dim, 0.0);
  for (std::size_t position = 0; position < weights.size(); ++position) {
    if (weights[position] == 0) continue;
    const double* row = kv.value_row(static_cast<std::int64_t>(position));
    for (std::int64_t d = 0; d < kv.head_dim; ++d) out[d] += weights[position] * row[d];
  }
}

/// The probabilities of one query of a prefill; returns the log-sum-exp.
double prefill_probabilities(const PrefillAttentionParams& params, const KeysAndValues& kv,
                             std::int64_t token, int head, std::vector<double>& probabilities) {
  const std::int64_t position = params.q_offset + token;
  const std::int64_t row = position / kBlockSize - params.q_offset / kBlockSize;
  probabilities = scores_of(
      kv, params.q + (token * params.num_heads + head) * kv.head_dim, params.scale, position,
      [&](std::int64_t block) { return params.mask == nullptr || params.mask->test(head, row, block); });
  return softmax(probabilities);
}

}  // namespace

double key(const PagedKv& kv, int kv_head, std::int64_t position, std::int64_t d) {
  const std::int64_t slot = position % kBlockSize;
  return element(kv.dtype, kv.k_tile(position / kBlockSize, kv_head), d * kBlockSize + slot,
                 (d / 2 * kBlockSize + slot) * 2 + d % 2);
}

double value(const PagedKv& kv, int kv_head, std::int64_t position, std::int64_t d) {
  const std::int64_t slot = position % kBlockSize;
  return element(kv.dtype, kv.v_tile(position / kBlockSize, kv_head), slot * kv.head_dim + d,
                 (slot / 2 * kv.head_dim + d) * 2 + slot % 2);
}

double attention_prefill_row(const PrefillAttentionParams& params, std::int64_t token, int head,
                             double* out) {
  const int kv_head = head / (params.num_heads / params.kv.num_kv_heads);
  const KeysAndValues kv(params.kv, kv_head, params.q_offset + token + 1);
  std::vector<double> probabilities;
  const double lse = prefill_probabilities(params, kv, token, head, probabilities);
  weighted_values(kv, probabilities, out);
  return lse;
}

void attention_prefill(const PrefillAttentionParams& params, double* out, double* lse,
                       double* pooled_target) {
  const std::int64_t first_row = params.q_offset / kBlockSize;
  const std::int64_t end = params.q_offset + params.num_tokens;
  const std::int64_t rows = blocks_for(end) - first_row;
  const std::int64_t stride = params.pooled_target_stride;
  if (pooled_target != nullptr) std::fill_n(pooled_target, params.num_heads * rows * stride, 0.0);
  std::vector<double> probabilities;
  for (int head = 0; head < params.num_heads; ++head) {
    const KeysAndValues kv(params.kv, head / (params.num_heads / params.kv.num_kv_heads), end);
    for (std::int64_t token = 0; token < params.num_tokens; ++token) {
      lse[head * params.num_tokens + token] = prefill_probabilities(params, kv, token, head, probabilities);
      weighted_values(kv, probabilities, out + (token * params.num_heads + head) * kv.head_dim);
      if (pooled_target == nullptr) continue;
      const std::int64_t row = (params.q_offset + token) / kBlockSize - first_row;
      double* target = pooled_target + (head * rows + row) * stride;
      for (std::size_t position = 0; position < probabilities.size(); ++position) {
        double& most = target[position / kBlockSize];
        most = std::max(most, probabilities[position]);
      }
    }
    if (pooled_target == nullptr) continue;
    for (std::int64_t row = 0; row < rows; ++row) {
      double* target = pooled_target + (head * rows + row) * stride;
      double sum = 0;
      for (std::int64_t j = 0; j < stride; ++j) sum += target[j];
      for (std::int64_t j = 0; j < stride; ++j) target[j] /= sum;
    }
  }
}

void attention_decode(const DecodeAttentionParams& params, double* out) {
  for (std::size_t b = 0; b < params.kv.size(); ++b) {
    const PagedKv& pages = params.kv[b];
    for (int head = 0; head < params.num_heads; ++head) {
      const std::int64_t index = static_cast<std::int64_t>(b) * params.num_heads + head;
      double* row = out + index * pages.head_dim;
      std::fill_n(row, pages.head_dim, 0.0);
      if (pages.length == 0) continue;
      const int kv_head = head / (params.num_heads / pages.num_kv_heads);
      const KeysAndValues kv(pages, kv_head, pages.length);
      const std::uint64_t* mask =
          params.mask == nullptr
              ? nullptr
              : params.mask +
                    (static_cast<std::int64_t>(b) * pages.num_kv_heads + kv_head) * params.mask_words;
      std::vector<double> probabilities = scores_of(
          kv, params.q + index * kv.head_dim, params.scale, pages.length - 1,
          [&](std::int64_t block) { return mask == nullptr || (mask[block / 64] >> (block % 64) & 1) != 0; });
      softmax(probabilities);
      weighted_values(kv, probabilities, row);
    }
  }
}

}  // namespace seer::reference
