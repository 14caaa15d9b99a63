// The forward pass on the CPU.
#pragma once

#include "model/transformer.h"
#include "ops/attention.h"

namespace seer {

class CpuTransformer final : public Transformer {
 public:
  CpuTransformer(std::shared_ptr<const ModelWeights> weights, const ModelConfig& config,
                 const Context& context, const TransformerOptions& options);
  ~CpuTransformer() override;

  Device device() const override { return Device::kCpu; }
  std::int64_t matrix_bytes() const override { return weights_->num_bytes; }
  /// One layer's keys and values of a sequence of this model.
  PagedKv layer(const Sequence& sequence, int layer) const { return kv_->view(layer, sequence); }

 private:
  struct Scratch;
  PrefillResult run_prefill(Sequence& sequence, const PrefillRequest& request) override;
  void run_decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens, float* logits,
                  std::span<const TokenDraw> draws, std::int32_t* next) override;
  void project_qkv(const LayerWeights& layer, std::int64_t tokens);
  void finish_layer(const LayerWeights& layer, std::int64_t tokens);
  void compute_logits(std::int64_t first, std::int64_t rows, float* logits);
  void score_chunk(const PrefillRequest& request, std::int64_t first, std::int64_t tokens);
  void prefill_chunk(Sequence& sequence, const PrefillRequest& request, const RopeTable& rope,
                     std::int64_t first, std::int64_t tokens, PrefillStats& stats);
  void observe(const PrefillRequest& request, const SelectInput& input, const BlockMask* mask,
               const PrefillAttentionParams& attention);
  const std::uint64_t* select_for_decode(std::span<Sequence* const> sequences, int layer, std::int64_t words);

  CpuTransformer(std::shared_ptr<const ModelWeights> weights, const ModelConfig& config,
                 const Context& context, const TransformerOptions& options, std::shared_ptr<KvPool> kv);

  std::shared_ptr<const ModelWeights> weights_;
  std::shared_ptr<KvPool> kv_;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace seer
