#include "cuda_model/device_gate.h"

#include <span>

#include "cuda/elementwise.h"

namespace seer {
namespace {

DeviceHalves to_bfloat16_on_device(const Buffer<float>& weight) {
  if (weight.size() == 0) return {};
  const DeviceFloats exact(std::span<const float>(weight.data(), static_cast<std::size_t>(weight.size())));
  DeviceHalves rounded(weight.size());
  cuda::convert(exact.data(), DType::kF32, rounded.data(), DType::kBF16, weight.size(), nullptr);
  cuda::check(cudaDeviceSynchronize(), "copy of the gate");
  return rounded;
}

}  // namespace

const DeviceGate& DeviceGate::of(Selector& selector) {
  if (selector.device_state == nullptr) {
    auto made = std::make_shared<DeviceGate>();
    for (const GateLayer& layer : selector.settings->gate->layers)
      made->layers.push_back({to_bfloat16_on_device(layer.k_weight), to_bfloat16_on_device(layer.q_weight)});
    selector.device_state = std::move(made);
  }
  return *static_cast<const DeviceGate*>(selector.device_state.get());
}

}  // namespace seer
