#include "model/gate_scorer.h"

#include "core/check.h"
#include "ops/elementwise.h"

namespace seer {

GateScorer::GateScorer(const ModelConfig& model, const Gate& gate)
    : model_(model),
      gate_(gate),
      dim_(gate.config.gate_hidden_size),
      k_heads_(gate.num_k_heads(model)),
      keys_(gate.layers.size()) {
  SEER_CHECK(static_cast<int>(gate.layers.size()) == model.num_layers,
             "gate: expected {} layers as in the model, found {}", model.num_layers, gate.layers.size());
}

void GateScorer::begin(std::int64_t total_tokens) {
  total_blocks_ = blocks_for(total_tokens);
  const std::int64_t half = dim_ / 2;
  cos_.reserve_discard(total_blocks_ * half);
  sin_.reserve_discard(total_blocks_ * half);
  RopeTable(model_.rope, dim_, total_tokens).fill(0, kBlockSize, total_blocks_, cos_.data(), sin_.data());
  for (Buffer<float>& keys : keys_) keys.reserve_discard(total_blocks_ * k_heads_ * dim_);
}

GateScores GateScorer::score(const Context& context, const SelectInput& input) {
  SEER_CHECK(input.q_offset % kBlockSize == 0, "gate: chunks start at multiples of {} tokens, found {}",
             kBlockSize, input.q_offset);
  const GateConfig& config = gate_.config;
  const int head_dim = model_.head_dim;
  const std::int64_t rows = blocks_for(input.num_tokens);
  q_pooled_.reserve_discard(rows * model_.num_heads * pool_count(config.q_pools) * head_dim);
  k_pooled_.reserve_discard(rows * model_.num_kv_heads * pool_count(config.k_pools) * head_dim);
  block_pool(context, input.q_pre, input.num_tokens, model_.num_heads, head_dim, input.q_stride,
             config.q_pools, q_pooled_.data());
  block_pool(context, input.k_pre, input.num_tokens, model_.num_kv_heads, head_dim, input.k_stride,
             config.k_pools, k_pooled_.data());
  return score(context, input.layer, input.q_offset / kBlockSize, rows, q_pooled_.data(), k_pooled_.data());
}

GateScores GateScorer::score(const Context& context, int layer_index, std::int64_t first_row,
                             std::int64_t rows, const float* q, const float* k_pooled) {
  const GateConfig& config = gate_.config;
  const GateLayer& layer = gate_.layers[static_cast<std::size_t>(layer_index)];
  const int heads = model_.num_heads, kv_heads = model_.num_kv_heads, head_dim = model_.head_dim;
  const std::int64_t stride = first_row + rows, half = dim_ / 2;
  SEER_CHECK(stride <= total_blocks_, "gate: the prompt was announced with {} blocks, found block {}",
             total_blocks_, stride - 1);
  q_.reserve_discard(rows * heads * dim_);
  scores_.reserve_discard(heads * rows * stride);

  const float* cos = cos_.data() + first_row * half;
  const float* sin = sin_.data() + first_row * half;
  if (config.has_q_linear(head_dim)) {
    gate_project(context, q, rows, heads, pool_count(config.q_pools) * head_dim, layer.q_weight.data(), heads,
                 dim_, q_.data());
    q = q_.data();
  }
  apply_rope(context, q, cos, sin, rows, heads, dim_, std::int64_t{heads} * dim_, q_.data(),
             std::int64_t{heads} * dim_);
  float* keys = keys_[static_cast<std::size_t>(layer_index)].data();
  float* new_keys = keys + first_row * k_heads_ * dim_;
  gate_project(context, k_pooled, rows, kv_heads, pool_count(config.k_pools) * head_dim,
               layer.k_weight.data(), k_heads_, dim_, new_keys);
  apply_rope(context, new_keys, cos, sin, rows, k_heads_, dim_, std::int64_t{k_heads_} * dim_, new_keys,
             std::int64_t{k_heads_} * dim_);
  gate_scores(context, q_.data(), rows, first_row, heads, keys, k_heads_, dim_, scores_.data(), stride);
  return {.data = scores_.data(), .stride = stride};
}

}  // namespace seer
