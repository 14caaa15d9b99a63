#include <cmath>

#include "core/buffer.h"
#include "model/selector_impl.h"

namespace seer {
namespace {

/// Chooses by the true pooled attention of the chunk, which costs a dense pass: the bound of what a gate can
/// reach.
class OracleSelector final : public Selector {
 public:
  OracleSelector(const SelectorSettings& settings, const ModelConfig& model)
      : settings_(settings),
        num_heads_(model.num_heads),
        is_adaptive_(settings.sparsity.rule == SparsityOptions::Rule::kAdaptive) {}

  void begin(std::int64_t total_tokens) override { params_ = settings_.resolve(total_tokens); }

  bool select(const Context& context, const SelectInput& input, BlockMask& mask) override {
    if (params_.rule == SelectRule::kDense) return false;
    const std::int64_t stride = mask.first_row() + mask.num_rows();
    target_.reserve_discard(num_heads_ * mask.num_rows() * stride);
    attention_prefill(context, {.q = input.q,
                                .num_tokens = input.num_tokens,
                                .q_offset = input.q_offset,
                                .num_heads = num_heads_,
                                .scale = input.scale,
                                .kv = input.kv,
                                .pooled_target = target_.data(),
                                .pooled_target_stride = stride});
    SelectParams params = params_;
    if (is_adaptive_) params.value = threshold_for_density(mask, stride);
    select_blocks(context, target_.data(), stride, params, mask);
    return true;
  }

 private:
  /// The threshold that keeps the asked share of this layer's and chunk's causal blocks, by bisection.
  double threshold_for_density(const BlockMask& mask, std::int64_t stride) const {
    constexpr int kSteps = 40;
    const double wanted = settings_.sparsity.value * static_cast<double>(mask.causal_blocks());
    double low = std::log(1e-12), high = 0;
    for (int step = 0; step < kSteps; ++step) {
      const double middle = (low + high) / 2, threshold = std::exp(middle);
      std::int64_t kept = 0;
      for (std::int64_t row = 0; row < num_heads_ * mask.num_rows(); ++row) {
        const std::int64_t causal = mask.first_row() + row % mask.num_rows() + 1;
        std::int64_t in_row = 0;
        for (std::int64_t j = 0; j < causal; ++j) in_row += target_[row * stride + j] > threshold;
        kept += std::max<std::int64_t>(in_row, 1);
      }
      (static_cast<double>(kept) > wanted ? low : high) = middle;
    }
    return std::exp(high);
  }

  SelectorSettings settings_;
  int num_heads_;
  bool is_adaptive_;  // the value is a density: the threshold comes from the chunk itself
  SelectParams params_;
  Buffer<float> target_;
};

}  // namespace

std::unique_ptr<Selector> make_oracle_selector(const SelectorSettings& settings, const ModelConfig& model) {
  return std::make_unique<OracleSelector>(settings, model);
}

}  // namespace seer
