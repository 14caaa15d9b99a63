#include "eval/inspect.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/check.h"
#include "io/atomic_file.h"

namespace seer {
namespace {

/// `chunk`'s rows at their place in a mask of the whole prompt.
void copy_rows(const BlockMask& chunk, BlockMask& whole) {
  for (int head = 0; head < chunk.num_heads(); ++head)
    for (std::int64_t row = 0; row < chunk.num_rows(); ++row)
      std::copy_n(chunk.row(head, row), chunk.words(), whole.row(head, chunk.first_row() + row));
}

/// Looks at each layer of each chunk right after its dense attention.
class Inspector final : public LayerObserver {
 public:
  Inspector(const ModelConfig& model, const Gate* gate, const InspectRequest& request, Inspection& result)
      : result_(result) {
    for (const EvalSetting& setting : request.settings) {
      selectors_.push_back(make_selector(setting.selector, setting.sparsity, model, gate, request.seed));
      if (setting.selector == SelectorKind::kGate) gated_ = selectors_.back().get();
      SettingInspection& kept = result.settings.emplace_back();
      kept.setting = setting;
      kept.num_heads = result.num_heads;
      kept.heads.resize(static_cast<std::size_t>(result.num_layers * result.num_heads));
      kept.masks.assign(static_cast<std::size_t>(result.num_layers),
                        BlockMask(result.num_heads, 0, result.blocks));
    }
    for (const int layer : request.layers)
      for (const int head : request.heads)
        result.maps.push_back(
            {.layer = layer,
             .head = head,
             .values = std::vector<float>(static_cast<std::size_t>(result.blocks * result.blocks))});
  }

  ObserverWants wants() const override { return {.target = true, .probe = true, .gated = gated_}; }

  void observe(const LayerObservation& seen) override {
    const float* target = seen.target;
    const std::int64_t first_row = seen.first_row, rows = seen.rows, stride = seen.target_stride;
    for (AttentionMap& map : result_.maps) {
      if (map.layer != seen.layer) continue;
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(target + (map.head * rows + row) * stride, first_row + row + 1,
                    map.values.data() + (first_row + row) * result_.blocks);
    }
    for (std::size_t i = 0; i < selectors_.size(); ++i) {
      seen.probe->select(*selectors_[i], mask_);
      select_oracle(target, stride);
      SettingInspection& setting = result_.settings[i];
      copy_rows(mask_, setting.masks[static_cast<std::size_t>(seen.layer)]);
      HeadInspection* heads = setting.heads.data() + seen.layer * result_.num_heads;
      add_recall(seen, mask_, heads, &HeadInspection::recall);
      add_recall(seen, oracle_, heads, &HeadInspection::oracle_recall);
      for (int head = 0; head < result_.num_heads; ++head) {
        heads[head].causal_blocks += mask_.causal_blocks() / result_.num_heads;
        for (std::int64_t row = 0; row < rows; ++row) heads[head].selected_blocks += mask_.count(head, row);
      }
    }
  }

 private:
  /// Adds the chunk's part of a mean over the prompt's tokens. Rounding may put a full row above 1.
  void add_recall(const LayerObservation& seen, const BlockMask& mask, HeadInspection* heads,
                  double HeadInspection::*member) {
    const float* lse = seen.probe->log_sum_exp(mask);
    for (int head = 0; head < result_.num_heads; ++head) {
      double sum = 0;
      for (std::int64_t i = head * seen.tokens; i < (head + 1) * seen.tokens; ++i)
        sum += std::min(std::exp(static_cast<double>(lse[i]) - seen.lse[i]), 1.0);
      heads[head].*member += sum / static_cast<double>(seen.total_tokens);
    }
  }

  /// oracle_: in every row the largest of the target, as many as mask_ has.
  void select_oracle(const float* target, std::int64_t stride) {
    oracle_.reset(mask_.num_heads(), mask_.first_row(), mask_.num_rows());
    std::vector<std::int64_t> order;
    for (int head = 0; head < mask_.num_heads(); ++head) {
      for (std::int64_t row = 0; row < mask_.num_rows(); ++row) {
        const float* values = target + (head * mask_.num_rows() + row) * stride;
        order.resize(static_cast<std::size_t>(mask_.first_row() + row + 1));
        std::iota(order.begin(), order.end(), 0);
        const auto end = order.begin() + mask_.count(head, row);
        std::partial_sort(order.begin(), end, order.end(), [&](std::int64_t a, std::int64_t b) {
          return values[a] != values[b] ? values[a] > values[b] : a > b;
        });
        for (auto block = order.begin(); block != end; ++block) oracle_.set(head, row, *block);
      }
    }
  }

  Inspection& result_;
  std::vector<std::unique_ptr<Selector>> selectors_;
  Selector* gated_ = nullptr;
  BlockMask mask_, oracle_;
};

void check_indices(const std::vector<int>& indices, int count, const char* what) {
  for (const int index : indices)
    SEER_CHECK(index >= 0 && index < count, "{}: expected numbers from 0 to {}, found {}", what, count - 1,
               index);
}

std::span<const HeadInspection> of_layer(const SettingInspection& setting, int layer) {
  return std::span(setting.heads)
      .subspan(static_cast<std::size_t>(layer * setting.num_heads),
               static_cast<std::size_t>(setting.num_heads));
}

double density_of(std::span<const HeadInspection> heads) {
  std::int64_t selected = 0, causal = 0;
  for (const HeadInspection& head : heads) {
    selected += head.selected_blocks;
    causal += head.causal_blocks;
  }
  return static_cast<double>(selected) / static_cast<double>(causal);
}

double mean_of(std::span<const HeadInspection> heads, double HeadInspection::*member) {
  double sum = 0;
  for (const HeadInspection& head : heads) sum += head.*member;
  return sum / static_cast<double>(heads.size());
}

}  // namespace

double SettingInspection::density(int layer) const { return density_of(of_layer(*this, layer)); }
double SettingInspection::density() const { return density_of(heads); }
double SettingInspection::recall(int layer) const {
  return mean_of(of_layer(*this, layer), &HeadInspection::recall);
}
double SettingInspection::recall() const { return mean_of(heads, &HeadInspection::recall); }
double SettingInspection::oracle_recall(int layer) const {
  return mean_of(of_layer(*this, layer), &HeadInspection::oracle_recall);
}
double SettingInspection::oracle_recall() const { return mean_of(heads, &HeadInspection::oracle_recall); }

Inspection inspect(Transformer& model, const Gate* gate, const InspectRequest& request) {
  Inspection result;
  result.tokens = static_cast<std::int64_t>(request.tokens.size());
  result.blocks = blocks_for(result.tokens);
  result.num_layers = model.config().num_layers;
  result.num_heads = model.config().num_heads;
  check_indices(request.layers, result.num_layers, "layers");
  check_indices(request.heads, result.num_heads, "heads");
  Inspector inspector(model.config(), gate, request, result);
  Sequence sequence = model.new_sequence();
  model.prefill(sequence, {.tokens = request.tokens,
                           .observer = &inspector,
                           .want_last_logits = false,
                           .on_progress = request.on_progress});
  return result;
}

void save_masks(const SettingInspection& setting, const std::string& folder) {
  static_assert(std::endian::native == std::endian::little, "mask files are little-endian");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  SEER_CHECK(!error, "{}: cannot create the folder: {}", folder, error.message());
  for (int layer = 0; layer < setting.num_layers(); ++layer) {
    const BlockMask& mask = setting.masks[static_cast<std::size_t>(layer)];
    AtomicFile file((std::filesystem::path(folder) / fmt::format("layer_{:02}.mask", layer)).string());
    file.write(mask.row(0, 0), static_cast<std::size_t>(mask.num_heads() * mask.num_rows() * mask.words()) *
                                   sizeof(std::uint64_t));
    file.commit();
  }
}

}  // namespace seer
