// What the frozen model is run for: pooled queries, keys and attention of every layer, one file per sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/tensor_file.h"
#include "model/transformer.h"
#include "train/gate_gradient.h"

namespace seer {

/// One sequence's pooled inputs and targets in a mapped file; GateSample points into it.
class CachedSequence {
 public:
  /// Opens `path`. Throws Error when its tensors do not have the shapes of `layers` layers of `shape`.
  CachedSequence(const std::string& path, const GateShape& shape, int layers);

  std::int64_t blocks() const { return blocks_; }
  /// cos and sin are left to the caller.
  GateSample sample(int layer) const;

 private:
  TensorStore store_;
  GateShape shape_;
  std::int64_t blocks_ = 0;
  const float* q_;
  const float* k_;
  const Float16* target_;
};

/// The fingerprint a cache file was written with, or an empty string where there is no (readable) file.
std::string cached_fingerprint(const std::string& path);

/// Runs `tokens` through the model, dense, and writes the cache file atomically. `on_progress` is told the
/// tokens done.
void write_cached_sequence(const std::string& path, Transformer& model, const GateConfig& gate,
                           std::span<const std::int32_t> tokens, const std::string& fingerprint,
                           const std::function<void(std::int64_t)>& on_progress);

}  // namespace seer
