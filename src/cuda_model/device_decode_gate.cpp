#include "cuda_model/device_decode_gate.h"

#include <algorithm>

#include "core/check.h"
#include "ops/block_mask.h"

namespace seer {
namespace {

/// Room for 4096 decoded tokens before the keys move.
constexpr std::int64_t kSpareBlocks = 64;

DeviceFloats upload_floats(const Buffer<float>& weight) {
  if (weight.size() == 0) return {};
  return DeviceFloats({weight.data(), static_cast<std::size_t>(weight.size())});
}

std::int64_t capacity_for(std::int64_t tokens, std::int64_t max_context) {
  return std::min(blocks_for(tokens) + kSpareBlocks, blocks_for(max_context));
}

}  // namespace

std::shared_ptr<const DeviceDecodeGate> DeviceDecodeGate::of(const DecodeGate& gate) {
  if (gate.device_state == nullptr) {
    SEER_CHECK(gate.gate_hidden_size % 16 == 0 && gate.gate_hidden_size <= 256,
               "--device cuda: a decode gate's seerattn_gate_hidden_size must be a multiple of 16 up to 256, "
               "found {}; use --device cpu",
               gate.gate_hidden_size);
    auto made = std::make_shared<DeviceDecodeGate>();
    made->dim = gate.gate_hidden_size;
    made->k_pools = gate.k_pools;
    made->start_layer = gate.start_layer;
    for (const DecodeGateLayer& layer : gate.layers)
      made->layers.push_back({upload_rounded(layer.q_weight, DType::kBF16),
                              upload_rounded(layer.k_weight, DType::kBF16), upload_floats(layer.q_norm),
                              upload_floats(layer.k_norm)});
    cuda::check(cudaDeviceSynchronize(), "decode gate");  // other streams read it
    gate.device_state = std::move(made);
  }
  return std::static_pointer_cast<const DeviceDecodeGate>(gate.device_state);
}

DeviceDecodeState& DeviceDecodeState::of(DecodeSelector& selector, const ModelConfig& model) {
  if (selector.device_state == nullptr)
    selector.device_state =
        std::make_shared<DeviceDecodeState>(DeviceDecodeGate::of(*selector.options().gate), model);
  return *static_cast<DeviceDecodeState*>(selector.device_state.get());
}

DeviceDecodeState::DeviceDecodeState(std::shared_ptr<const DeviceDecodeGate> gate, const ModelConfig& model)
    : gate_(std::move(gate)),
      layers_(model.num_layers),
      kv_heads_(model.num_kv_heads),
      open_size_(kBlockSize * model.kv_size()),
      open_(layers_ * open_size_) {
  selected_.fill_bytes(0);
  cuda::check(cudaDeviceSynchronize(), "decode gate");  // other streams read it
}

std::int64_t DeviceDecodeState::bytes_to_begin(std::int64_t tokens, std::int64_t max_context) const {
  const std::int64_t blocks = capacity_for(tokens, max_context);
  return blocks <= capacity_ ? 0 : 2 * block_size() * blocks;
}

void DeviceDecodeState::begin(std::int64_t tokens, std::int64_t max_context, cudaStream_t stream) {
  if (blocks_for(tokens) > capacity_) reserve(capacity_for(tokens, max_context), 0, stream);
  tokens_ = tokens;
  total_blocks_ = dense_blocks_ = 0;
  cuda::check(cudaMemsetAsync(selected_.data(), 0, selected_.bytes(), stream), "decode gate");
}

void DeviceDecodeState::extend(std::int64_t position, std::int64_t max_context, cudaStream_t stream) {
  SEER_CHECK(position == tokens_, "decode gate: expected the token at position {}, found {}", tokens_,
             position);
  const std::int64_t blocks = blocks_for(++tokens_);
  if (blocks > capacity_) reserve(capacity_for(tokens_, max_context), capacity_, stream);
  total_blocks_ += layers_ * kv_heads_ * blocks;
  dense_blocks_ += std::min<std::int64_t>(gate_->start_layer, layers_) * kv_heads_ * blocks;
}

/// Moves the keys of the first `kept` blocks to where there is room for more.
void DeviceDecodeState::reserve(std::int64_t blocks, std::int64_t kept, cudaStream_t stream) {
  DeviceHalves larger(block_size() * blocks);
  const auto row = [&](std::int64_t of) { return static_cast<std::size_t>(2 * gate_->dim * of); };
  if (kept > 0)
    cuda::check(
        cudaMemcpy2DAsync(larger.data(), row(blocks), keys_.data(), row(capacity_), row(kept),
                          static_cast<std::size_t>(layers_ * kv_heads_), cudaMemcpyDeviceToDevice, stream),
        "decode gate");
  cuda::check(cudaStreamSynchronize(stream), "decode gate");  // before the old ones go
  keys_ = std::move(larger);
  capacity_ = blocks;
}

std::uint16_t* DeviceDecodeState::keys(int layer) {
  return keys_.data() + layer * kv_heads_ * capacity_ * gate_->dim;
}

std::uint16_t* DeviceDecodeState::open(int layer) { return open_.data() + layer * open_size_; }

cuda::DecodeGateSequence DeviceDecodeState::view() {
  return {
      .keys = keys_.data(), .open = open_.data(), .selected_blocks = selected_.data(), .capacity = capacity_};
}

DecodeDensity DeviceDecodeState::density() const {
  return {.selected_blocks = dense_blocks_ + static_cast<std::int64_t>(selected_.download().front()),
          .total_blocks = total_blocks_};
}

}  // namespace seer
