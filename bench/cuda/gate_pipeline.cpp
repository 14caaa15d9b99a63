#include "gate_pipeline.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "device_fill.h"
#include "ops/block_mask.h"
#include "ops/gate.h"

namespace seer::cuda {
namespace {

/// Layers whose weights take turns, so that none is found in L2.
constexpr int kLayers = 32;
constexpr int kKeyPools = 3;

}  // namespace

std::vector<double> inverse_frequencies(int dim) {
  std::vector<double> frequencies;
  for (int pair = 0; pair < dim / 2; ++pair) frequencies.push_back(std::pow(500000.0, -2.0 * pair / dim));
  return frequencies;
}

GatePipeline::GatePipeline(const GateShape& s)
    : shape_(s),
      blocks_(blocks_for(s.length)),
      mask_words_(mask_words_for(blocks_)),
      qkv_(s.length * (s.heads + 2 * s.kv_heads) * s.head_dim),
      q_(s.length * s.heads * s.head_dim),
      cache_(blocks_ * kBlockSize * 2 * s.kv_heads * s.head_dim),
      weights_(std::int64_t{kLayers} * s.heads * kKeyPools * s.head_dim * s.head_dim),
      gate_q_(blocks_ * s.heads * s.head_dim),
      k_pooled_(blocks_ * s.kv_heads * kKeyPools * s.head_dim),
      gate_k_(gate_q_.size()),
      cos_(blocks_ * kBlockSize * s.head_dim / 2),
      sin_(cos_.size()),
      block_cos_(blocks_ * s.head_dim / 2),
      block_sin_(block_cos_.size()),
      page_table_(blocks_),
      mask_(s.heads * blocks_ * mask_words_),
      selected_(1) {
  fill_normal(DType::kBF16, qkv_.data(), qkv_.size(), 1);
  fill_normal(DType::kBF16, weights_.data(), weights_.size(), 2);
  std::vector<std::int32_t> pages(static_cast<std::size_t>(blocks_));
  std::iota(pages.begin(), pages.end(), 0);
  page_table_.upload(pages);
  const DeviceArray<double> inv_freq(inverse_frequencies(s.head_dim));
  rope_table(inv_freq.data(), s.head_dim, 1, 0, 1, blocks_ * kBlockSize, cos_.data(), sin_.data(), nullptr);
  rope_table(inv_freq.data(), s.head_dim, 1, 0, kBlockSize, blocks_, block_cos_.data(), block_sin_.data(),
             nullptr);
  check(cudaDeviceSynchronize(), "gate benchmark");
}

RopePoolParams GatePipeline::rope_params() {
  const GateShape& s = shape_;
  RopePoolParams p;
  p.qkv = qkv_.data();
  p.qkv_stride = static_cast<std::int64_t>(s.heads + 2 * s.kv_heads) * s.head_dim;
  p.q = q_.data();
  p.q_stride = static_cast<std::int64_t>(s.heads) * s.head_dim;
  p.cache = {.k = cache_.data(),
             .v = cache_.data() + kBlockSize * s.head_dim,
             .token_stride = s.head_dim,
             .head_stride = 2 * kBlockSize * s.head_dim,
             .page_stride = 2 * kBlockSize * s.kv_heads * s.head_dim,
             .page_table = page_table_.data(),
             .page_table_stride = blocks_};
  p.cos = cos_.data();
  p.sin = sin_.data();
  p.num_tokens = s.length;
  p.num_heads = s.heads;
  p.num_kv_heads = s.kv_heads;
  p.head_dim = s.head_dim;
  p.q_pools = kPoolAvg;
  p.k_pools = kPoolMax | kPoolMin | kPoolAvg;
  return p;
}

void GatePipeline::rope(Stream stream) { cuda::rope_pool(rope_params(), stream); }

void GatePipeline::rope_pool(Stream stream) {
  RopePoolParams p = rope_params();
  p.q_gate = gate_q_.data();
  p.k_gate = k_pooled_.data();
  p.block_cos = block_cos_.data();
  p.block_sin = block_sin_.data();
  cuda::rope_pool(p, stream);
}

void GatePipeline::project_k(Stream stream) {
  const GateShape& s = shape_;
  gate_project({.x = k_pooled_.data(),
                .n = blocks_,
                .x_heads = s.kv_heads,
                .in_dim = kKeyPools * s.head_dim,
                .w = weights_.data() + layer_++ % kLayers * (weights_.size() / kLayers),
                .heads = s.heads,
                .out_dim = s.head_dim,
                .cos = block_cos_.data(),
                .sin = block_sin_.data(),
                .out = gate_k_.data(),
                .out_head_stride = blocks_ * s.head_dim},
               stream);
}

void GatePipeline::select(const SelectParams& params, Stream stream) {
  const GateShape& s = shape_;
  gate_select({.q = gate_q_.data(),
               .q_head_stride = s.head_dim,
               .q_row_stride = s.heads * s.head_dim,
               .k = gate_k_.data(),
               .k_head_stride = blocks_ * s.head_dim,
               .heads = s.heads,
               .k_heads = s.heads,
               .dim = s.head_dim,
               .rows = blocks_,
               .select = params,
               .mask = mask_.data(),
               .mask_words = mask_words_,
               .selected_blocks = selected_.data()},
              stream);
}

void GatePipeline::all(const SelectParams& params, Stream stream) {
  rope_pool(stream);
  project_k(stream);
  select(params, stream);
}

SelectParams GatePipeline::params_for(SelectRule rule, double wanted) {
  SelectParams params = {rule, wanted, false, blocks_};
  all(params, nullptr);
  if (rule == SelectRule::kNzRatio) return params;
  double low = std::log(1e-9), high = 0;
  for (int step = 0; step < 24; ++step) {
    const double middle = (low + high) / 2;
    params.value = std::exp(middle);
    (density(params) > wanted ? low : high) = middle;
  }
  return params;
}

double GatePipeline::density(const SelectParams& params) {
  selected_.fill_bytes(0);
  select(params, nullptr);
  const auto n = static_cast<double>(blocks_);
  return static_cast<double>(selected_.download()[0]) / (shape_.heads * n * (n + 1) / 2);
}

double GatePipeline::rope_bytes() const {
  return static_cast<double>(2 * qkv_.bytes() + cos_.bytes() + sin_.bytes());
}
double GatePipeline::pool_bytes() const { return static_cast<double>(gate_q_.bytes() + k_pooled_.bytes()); }
double GatePipeline::project_bytes() const {
  return static_cast<double>(weights_.bytes() / kLayers + k_pooled_.bytes() + gate_k_.bytes());
}
double GatePipeline::select_bytes() const {
  return static_cast<double>(gate_q_.bytes() + gate_k_.bytes() + mask_.bytes());
}

}  // namespace seer::cuda
