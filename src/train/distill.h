// Distillation of gates from the model's own attention: the frozen model runs once over every sequence, then
// all layers' gates learn from what was kept of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/gate.h"
#include "model/transformer.h"
#include "train/gate_gradient.h"

namespace seer {

/// "identity": queries and keys enter with their means, unchanged (needs avg pools and gate_hidden_size ==
/// head_dim). "xavier": uniform in +-sqrt(6 / (in + out)) for every head's matrix.
enum class GateInit { kIdentity, kXavier };

struct DistillOptions {
  std::string model_folder;  // for config.json of the gate folder and to tell models apart
  std::string out;           // gate folder; checkpoint and cache lie in it while training goes on
  GateConfig gate;
  GateLoss loss = GateLoss::kRow;
  GateInit init = GateInit::kIdentity;
  double learning_rate = 1e-3;
  std::int64_t warmup_steps = 20;
  std::int64_t steps = 500;
  std::int64_t batch = 8;     // sequences per step
  std::int64_t held_out = 4;  // sequences that are measured, not trained on
  std::uint64_t seed = 1;
  std::int64_t log_every = 10;         // steps between lines of the log
  std::int64_t evaluate_every = 100;   // steps between measurements on the held-out sequences
  std::int64_t checkpoint_every = 50;  // steps
  double recall_density = 0.1;
  SaveGateOptions save;
  std::string cache;        // folder of the frozen model's results; empty: OUT/cache
  bool keep_cache = false;  // after success; a cache folder that was named is always kept
  bool show_progress = true;
  std::int64_t stop_after = 0;  // > 0: stop after so many steps of this run, as if killed after a checkpoint
};

/// What a gate reaches on the held-out sequences, by layer.
struct GateQuality {
  std::vector<double> loss;    // row-wise KL divergence, mean over rows and heads
  std::vector<double> recall;  // share of the pooled attention inside the selected blocks
};

/// One threshold for the whole model keeps `density` of all causal blocks; recall is the share of the pooled
/// attention (rows sum to 1) that lies in them.
GateQuality measure_gate(const Context& context, const ModelConfig& model, const Gate& gate,
                         const std::vector<std::string>& cache_files, double density);

struct DistillResult {
  bool finished = false;  // false: stopped by stop_after
  std::int64_t steps = 0;
  double seconds = 0;  // of all runs together
  GateQuality quality;
};

/// Trains gates on `sequences` (the held-out ones are spread among them) and writes the gate folder, with
/// distill.jsonl, the log, and distill.json, the settings and results. A run that was killed at any moment
/// goes on where the last checkpoint (or the last cached sequence) left it, and ends with the same bits as an
/// undisturbed one. Throws Error when the folder holds a run of other settings.
DistillResult distill(Transformer& model, const std::vector<std::vector<std::int32_t>>& sequences,
                      const DistillOptions& options);

GateLoss parse_gate_loss(std::string_view name);  ///< row | reference
GateInit parse_gate_init(std::string_view name);  ///< identity | xavier

}  // namespace seer
