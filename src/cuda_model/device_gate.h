// A gate's weights in device memory.
#pragma once

#include <memory>
#include <vector>

#include "cuda_model/device_weights.h"
#include "model/gate.h"
#include "model/selector.h"

namespace seer {

struct DeviceGate {
  struct Layer {
    DeviceHalves k_weight, q_weight;  // bf16, shapes of GateLayer; q_weight empty without a q linear
  };
  std::vector<Layer> layers;

  /// Copied there once, and kept with the selector.
  static const DeviceGate& of(Selector& selector);
};

}  // namespace seer
