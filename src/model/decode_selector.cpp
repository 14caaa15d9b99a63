#include "model/decode_selector.h"

#include <algorithm>

#include "core/check.h"
#include "ops/select.h"

namespace seer {

using Rule = DecodeSparsity::Rule;

void validate(const DecodeSparsity& options) {
  if (options.rule == Rule::kTokenBudget)
    SEER_CHECK(options.token_budget >= kBlockSize,
               "--token-budget: expected {} tokens (one block) or more, found {}", kBlockSize,
               options.token_budget);
  else
    SEER_CHECK(options.threshold >= 0 && options.threshold <= 1,
               "decode threshold: expected at least 0 and at most 1, found {}", options.threshold);
}

DecodeSelector::DecodeSelector(const ModelConfig& model, const DecodeSparsity& options)
    : model_(model), options_(options), rope_(model.rope, options.gate->gate_hidden_size, 1) {
  validate(options);
  SEER_CHECK(static_cast<int>(options.gate->layers.size()) == model.num_layers,
             "decode gate: expected {} layers as in the model, found {}", model.num_layers,
             options.gate->layers.size());
  for (int layer = 0; layer < model.num_layers; ++layer)
    layers_.push_back({.keys = CompressedKeys(model.num_kv_heads, options.gate->gate_hidden_size),
                       .open = Buffer<float>(kBlockSize * model.kv_size())});
  query_.reserve_discard(std::int64_t{model.num_kv_heads} * options.gate->gate_hidden_size);
}

void DecodeSelector::begin(std::int64_t total_tokens) {
  choose_rope(total_tokens);
  density_ = {};
  for (Layer& layer : layers_) {
    layer.keys.clear();
    layer.tokens = 0;
  }
}

/// As Transformer::rope_for: only dynamic NTK's frequencies depend on the length.
void DecodeSelector::choose_rope(std::int64_t length) {
  if (model_.rope.type != RopeType::kDynamic) return;
  rope_ = RopeTable(model_.rope, rope_.dim(), length);
  query_rotation_.first = key_rotation_.first = -1;
}

/// Cosines and sines of `count` positions 64 apart, the same for every layer.
const DecodeSelector::Rotation& DecodeSelector::rotation(Rotation& kept, std::int64_t first,
                                                         std::int64_t count) {
  if (kept.first == first && kept.count == count) return kept;
  kept.first = first, kept.count = count;
  kept.cos.reserve_discard(count * rope_.dim() / 2);
  kept.sin.reserve_discard(count * rope_.dim() / 2);
  rope_.fill(first, kBlockSize, count, kept.cos.data(), kept.sin.data());
  return kept;
}

/// Takes in whole blocks, the first one's key rotated at `position`.
void DecodeSelector::complete(const Context& context, int layer, const float* k, std::int64_t num_blocks,
                              std::int64_t position) {
  const Rotation& at = rotation(key_rotation_, position, num_blocks);
  new_keys_.reserve_discard(num_blocks * query_.size());
  decode_gate_keys(context, options_.gate->params(model_, layer), k, num_blocks, at.cos.data(), at.sin.data(),
                   new_keys_.data());
  layers_[static_cast<std::size_t>(layer)].keys.append(new_keys_.data(), num_blocks);
}

void DecodeSelector::add_prompt(const Context& context, int layer_index, std::int64_t first,
                                std::int64_t tokens, const float* k_pre) {
  Layer& layer = layers_[static_cast<std::size_t>(layer_index)];
  SEER_CHECK(first == layer.tokens && first % kBlockSize == 0,
             "decode gate: expected a chunk from position {}, found one from {}", layer.tokens, first);
  const std::int64_t full = tokens / kBlockSize, taken = full * kBlockSize;
  if (full > 0) complete(context, layer_index, k_pre, full, first);
  std::copy(k_pre + taken * model_.kv_size(), k_pre + tokens * model_.kv_size(), layer.open.begin());
  layer.tokens += tokens;
}

const BlockMask* DecodeSelector::select(const Context& context, int layer_index, std::int64_t position,
                                        const float* q_pre, const float* k_pre) {
  Layer& layer = layers_[static_cast<std::size_t>(layer_index)];
  SEER_CHECK(position == layer.tokens, "decode gate: expected the token at position {}, found {}",
             layer.tokens, position);
  if (layer_index == 0) choose_rope(position + 1);
  const std::int64_t slot = position % kBlockSize, blocks = position / kBlockSize + 1;
  std::copy_n(k_pre, model_.kv_size(), layer.open.begin() + slot * model_.kv_size());
  ++layer.tokens;
  if (slot == kBlockSize - 1)
    complete(context, layer_index, layer.open.data(), 1,
             options_.reference_rope ? position : position - slot);

  const int heads = model_.num_kv_heads;
  density_.total_blocks += heads * blocks;
  const std::int64_t budget = options_.token_budget / kBlockSize;
  if (layer_index < options_.gate->start_layer || (options_.rule == Rule::kTokenBudget && budget >= blocks)) {
    density_.selected_blocks += heads * blocks;
    return nullptr;
  }
  const Rotation& at = rotation(query_rotation_, position, 1);
  decode_gate_query(context, options_.gate->params(model_, layer_index), q_pre, at.cos.data(), at.sin.data(),
                    query_.data());
  probabilities_.reserve_discard(heads * blocks);
  decode_gate_probabilities(context, query_.data(), layer.keys, blocks, probabilities_.data());
  mask_.reset(heads, blocks - 1, 1);
  if (options_.rule == Rule::kTokenBudget)
    select_top_k(context, probabilities_.data(), blocks, budget, mask_);
  else
    select_blocks(context, probabilities_.data(), blocks,
                  {.rule = SelectRule::kThreshold, .value = options_.threshold}, mask_);
  for (int head = 0; head < heads; ++head) mask_.set(head, 0, blocks - 1);
  density_.selected_blocks += mask_.selected_blocks();
  return &mask_;
}

}  // namespace seer
