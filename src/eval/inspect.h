// What a selector keeps of one prompt's attention: masks beside the true attention map, recall of attention
// mass and density by layer and head.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/setting.h"
#include "model/gate.h"
#include "model/transformer.h"

namespace seer {

/// One head under one setting. Recall is the share of attention mass inside the selected blocks, mean over
/// the prompt's tokens, computed from the log-sum-exp of selected and of all keys; `oracle_recall` that of as
/// many blocks in every row, chosen by the true block maxima that gates learn; mass and maxima differ, so it
/// is no upper bound.
struct HeadInspection {
  std::int64_t selected_blocks = 0;
  std::int64_t causal_blocks = 0;
  double recall = 0;
  double oracle_recall = 0;

  double density() const { return static_cast<double>(selected_blocks) / static_cast<double>(causal_blocks); }
};

/// The true attention map of one head, pooled: row i holds the block maxima of block row i, divided by their
/// sum.
struct AttentionMap {
  int layer = 0;
  int head = 0;
  std::vector<float> values;  // [blocks, blocks], 0 right of the diagonal
};

/// What one setting selected.
struct SettingInspection {
  EvalSetting setting;
  int num_heads = 0;
  std::vector<HeadInspection> heads;  // [layers, heads]
  std::vector<BlockMask> masks;       // one per layer, of the whole prompt

  const HeadInspection& head(int layer, int head) const {
    return heads[static_cast<std::size_t>(layer * num_heads + head)];
  }
  int num_layers() const { return static_cast<int>(masks.size()); }
  /// Over all heads of a layer, or of the model.
  double density(int layer) const;
  double density() const;
  double recall(int layer) const;
  double recall() const;
  double oracle_recall(int layer) const;
  double oracle_recall() const;
};

struct Inspection {
  std::int64_t tokens = 0;
  std::int64_t blocks = 0;
  int num_layers = 0;
  int num_heads = 0;
  std::vector<SettingInspection> settings;
  std::vector<AttentionMap> maps;  // of the layers and heads asked for, layer by layer
};

struct InspectRequest {
  std::span<const std::int32_t> tokens;
  std::vector<EvalSetting> settings;
  std::vector<int> layers;  // of which maps are kept
  std::vector<int> heads;
  std::uint64_t seed = 0;  // of the random selector
  std::function<void(std::int64_t done)> on_progress;
};

/// Runs one dense prefill; every layer is looked at with the inputs that dense layers before it give, so
/// settings are compared on the same map. Throws Error when a setting, layer or head does not exist.
Inspection inspect(Transformer& model, const Gate* gate, const InspectRequest& request);

/// A page that needs nothing beside it: density and recall by layer and head, and for every kept map the true
/// attention beside each setting's mask. `facts` are shown at the end in this order.
std::string inspect_html(const Inspection& inspection,
                         const std::vector<std::pair<std::string, std::string>>& facts);

/// One line per layer and setting, and one for the whole model.
std::string inspect_table(const Inspection& inspection);

/// A JSON array of one row per setting: {"length", "selector", "rule", "value", "density", "recall",
/// "oracle_recall", "head_density": [layers][heads], "head_recall", "head_oracle_recall", + `provenance`},
/// where `provenance` is JSON members without braces.
std::string inspect_json(const Inspection& inspection, const std::string& provenance);

/// Writes FOLDER/layer_LL.mask for every layer: 64-bit little-endian words [heads, blocks, ceil(blocks /
/// 64)], bit j % 64 of a row's word j / 64 standing for key block j, nothing else in the file.
void save_masks(const SettingInspection& setting, const std::string& folder);

}  // namespace seer
