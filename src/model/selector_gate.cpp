#include "core/check.h"
#include "model/gate_scorer.h"
#include "model/selector_impl.h"

namespace seer {
namespace {

class GateSelector final : public Selector {
 public:
  GateSelector(const SelectorSettings& settings, const ModelConfig& model)
      : settings_(settings), scorer_(model, *settings.gate) {}

  void begin(std::int64_t total_tokens) override {
    params_ = settings_.resolve(total_tokens);
    if (params_.rule != SelectRule::kDense) scorer_.begin(total_tokens);
  }

  bool select(const Context& context, const SelectInput& input, BlockMask& mask) override {
    if (params_.rule == SelectRule::kDense) return false;
    const GateScores scores = scorer_.score(context, input);
    if (params_.rule != SelectRule::kNzRatio)
      causal_softmax(context, scores.data, mask.num_heads(), mask.num_rows(), mask.first_row(),
                     scores.stride);
    select_blocks(context, scores.data, scores.stride, params_, mask);
    return true;
  }

 private:
  SelectorSettings settings_;
  GateScorer scorer_;
  SelectParams params_;
};

}  // namespace

std::unique_ptr<Selector> make_gate_selector(const SelectorSettings& settings, const ModelConfig& model) {
  return std::make_unique<GateSelector>(settings, model);
}

}  // namespace seer
