#include "cuda_model/device_gate.h"

namespace seer {

const DeviceGate& DeviceGate::of(Selector& selector) {
  if (selector.device_state == nullptr) {
    auto made = std::make_shared<DeviceGate>();
    for (const GateLayer& layer : selector.settings->gate->layers)
      made->layers.push_back(
          {upload_rounded(layer.k_weight, DType::kBF16), upload_rounded(layer.q_weight, DType::kBF16)});
    selector.device_state = std::move(made);
  }
  return *static_cast<const DeviceGate*>(selector.device_state.get());
}

}  // namespace seer
