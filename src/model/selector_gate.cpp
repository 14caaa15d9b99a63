#include "core/check.h"
#include "model/gate_scorer.h"
#include "model/selector_impl.h"

namespace seer {
namespace {

class GateSelector final : public Selector {
 public:
  GateSelector(const SparsityOptions& options, const ModelConfig& model, const Gate& gate)
      : options_(options), gate_(gate), scorer_(model, gate) {}

  void begin(std::int64_t total_tokens) override {
    params_ = resolve(options_, total_tokens, &gate_);
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
  SparsityOptions options_;
  const Gate& gate_;
  GateScorer scorer_;
  SelectParams params_;
};

}  // namespace

std::unique_ptr<Selector> make_gate_selector(const SparsityOptions& options, const ModelConfig& model,
                                             const Gate& gate) {
  return std::make_unique<GateSelector>(options, model, gate);
}

}  // namespace seer
