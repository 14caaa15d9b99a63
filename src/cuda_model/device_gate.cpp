#include "cuda_model/device_gate.h"

namespace seer {

const DeviceGate& DeviceGate::of(Selector& selector) {
  if (selector.device_state == nullptr) {
    auto made = std::make_shared<DeviceGate>();
    const auto upload = [](const Buffer<float>& weight) {
      return upload_rounded({weight.data(), static_cast<std::size_t>(weight.size())}, DType::kBF16);
    };
    for (const GateLayer& layer : selector.settings->gate->layers)
      made->layers.push_back({upload(layer.k_weight), upload(layer.q_weight)});
    selector.device_state = std::move(made);
  }
  return *static_cast<const DeviceGate*>(selector.device_state.get());
}

}  // namespace seer
