// Thresholds that give a density: measured on sample text, stored with the gate.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/gate.h"
#include "model/transformer.h"

namespace seer {

struct CalibrateOptions {
  std::vector<std::int64_t> lengths;        // prompt lengths of the table, rising
  std::vector<double> densities;            // rising, in (0, 1)
  SelectRule rule = SelectRule::kResidual;  // or kThreshold, kTopP
  /// Sparse passes at the thresholds found in the dense pass: earlier layers' sparsity changes what later
  /// gates see. Without them the table is the dense pass's.
  bool refine = true;
  /// Told the work done so far and all of it, in tokens of a dense pass.
  std::function<void(double, double)> on_progress;
};

/// One threshold for all layers, heads and rows for every length and density. The sequences are read from
/// their starts; each counts for the lengths that it reaches. Throws Error when none reaches a length.
Calibration calibrate(Transformer& model, const Gate& gate,
                      const std::vector<std::vector<std::int32_t>>& sequences,
                      const CalibrateOptions& options);

}  // namespace seer
