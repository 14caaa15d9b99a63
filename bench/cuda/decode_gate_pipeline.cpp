#include "decode_gate_pipeline.h"

#include <algorithm>
#include <vector>

#include "device_fill.h"
#include "gate_pipeline.h"
#include "ops/block_mask.h"
#include "ops/gate.h"

namespace seer::cuda {
namespace {

constexpr unsigned kPools = kPoolMax | kPoolMin | kPoolAvg;

}  // namespace

DecodeGatePipeline::DecodeGatePipeline(const DecodeGateShape& s, std::int64_t kept)
    : shape_(s),
      blocks_(blocks_for(s.length)),
      mask_words_(mask_words_for(blocks_)),
      qkv_(std::int64_t{s.batch} * (s.heads + 2 * s.kv_heads) * s.head_dim),
      q_weights_(std::int64_t{s.layers} * s.heads * s.head_dim * s.head_dim),
      k_weights_(std::int64_t{s.layers} * s.kv_heads * pool_count(kPools) * s.head_dim * s.head_dim),
      keys_(s.batch * s.layers * s.kv_heads * blocks_ * s.head_dim),
      open_(s.batch * s.layers * kBlockSize * s.kv_heads * s.head_dim),
      norm_(std::vector<float>(static_cast<std::size_t>(s.head_dim), 1.0f)),
      cos_(blocks_ * kBlockSize * s.head_dim / 2),
      sin_(cos_.size()),
      positions_(
          std::vector<std::int32_t>(static_cast<std::size_t>(s.batch),
                                    static_cast<std::int32_t>(std::max<std::int64_t>(0, s.length - 2)))),
      sequences_(s.batch),
      mask_(s.batch * s.kv_heads * mask_words_),
      selected_(1) {
  fill_normal(s.dtype, qkv_.data(), qkv_.size(), 1);
  fill_normal(DType::kBF16, q_weights_.data(), q_weights_.size(), 2);
  fill_normal(DType::kBF16, k_weights_.data(), k_weights_.size(), 3);
  fill_normal(DType::kBF16, keys_.data(), keys_.size(), 4);
  fill_normal(s.dtype, open_.data(), open_.size(), 5);
  const DeviceArray<double> inv_freq(inverse_frequencies(s.head_dim));
  rope_table(inv_freq.data(), s.head_dim, 1, 0, 1, blocks_ * kBlockSize, cos_.data(), sin_.data(), nullptr);
  check(cudaDeviceSynchronize(), "gate benchmark");
  std::vector<DecodeGateSequence> sequences;
  for (int b = 0; b < s.batch; ++b)
    sequences.push_back({.keys = keys_.data() + b * (keys_.size() / s.batch),
                         .open = open_.data() + b * (open_.size() / s.batch),
                         .selected_blocks = selected_.data(),
                         .capacity = blocks_});
  sequences_.upload(sequences);
  params_ = {.gate = {.dtype = s.dtype,
                      .num_heads = s.heads,
                      .num_kv_heads = s.kv_heads,
                      .head_dim = s.head_dim,
                      .dim = s.head_dim,
                      .k_pools = kPools,
                      .q_norm = norm_.data(),
                      .k_norm = norm_.data(),
                      .cos = cos_.data(),
                      .sin = sin_.data()},
             .batch = s.batch,
             .sequences = sequences_.data(),
             .qkv = qkv_.data(),
             .qkv_stride = qkv_.size() / s.batch,
             .positions = positions_.data(),
             .token_budget = kept * kBlockSize,
             .mask = mask_.data(),
             .mask_words = mask_words_};
}

void DecodeGatePipeline::run(int layer, Stream stream) {
  params_.layer = layer;
  params_.gate.q_weight = q_weights_.data() + layer * (q_weights_.size() / shape_.layers);
  params_.gate.k_weight = k_weights_.data() + layer * (k_weights_.size() / shape_.layers);
  decode_gate(params_, stream);
}

double DecodeGatePipeline::density() {
  selected_.fill_bytes(0);
  run(0, nullptr);
  return static_cast<double>(selected_.download()[0]) /
         static_cast<double>(shape_.batch * shape_.kv_heads * blocks_);
}

}  // namespace seer::cuda
