// What an observer asks about a layer of a prefill on the GPU.
#pragma once

#include <vector>

#include "cuda_model/prefill_state.h"

namespace seer {

/// Every call waits for the device. The chunk's attention and target stay as they are.
class CudaTransformer::Probe final : public LayerProbe {
 public:
  /// All are kept by reference; `prepared` has the gate whose inputs the prefill has computed.
  Probe(CudaTransformer& model, const Selection& prepared, const ChunkView& chunk, int layer)
      : model_(model), prepared_(prepared), chunk_(chunk), layer_(layer) {}
  void select(Selector& selector, BlockMask& mask) override;
  const float* log_sum_exp(const BlockMask& mask) override;

 private:
  CudaTransformer& model_;
  const Selection& prepared_;
  const ChunkView& chunk_;
  int layer_;
  std::vector<float> lse_;
};

}  // namespace seer
