// What decode gates keep in device memory: their weights, and the compressed keys of the sequences they
// serve.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/decode_gate.h"
#include "cuda_model/device_weights.h"
#include "model/decode_selector.h"

namespace seer {

struct DeviceDecodeGate {
  struct Layer {
    DeviceHalves q_weight, k_weight;  // bf16, shapes of DecodeGateLayer
    DeviceFloats q_norm, k_norm;      // empty in a gate without norms
  };
  int dim = 0;
  unsigned k_pools = 0;
  int start_layer = 0;
  std::vector<Layer> layers;

  /// Copied there once, and kept with the gate. Throws Error when the kernels do not take its size.
  static std::shared_ptr<const DeviceDecodeGate> of(const DecodeGate& gate);
};

/// One sequence's side of the gate.
class DeviceDecodeState {
 public:
  /// The selector's, made when it has none.
  static DeviceDecodeState& of(DecodeSelector& selector, const ModelConfig& model);
  DeviceDecodeState(std::shared_ptr<const DeviceDecodeGate> gate, const ModelConfig& model);

  const DeviceDecodeGate& gate() const { return *gate_; }
  /// Bytes that a prompt of this many tokens takes, beyond what is there.
  std::int64_t bytes_to_begin(std::int64_t tokens, std::int64_t max_context) const;
  /// A prompt starts.
  void begin(std::int64_t tokens, std::int64_t max_context, cudaStream_t stream);
  /// The token at `position` is about to come. Throws Error when it is not the next one.
  void extend(std::int64_t position, std::int64_t max_context, cudaStream_t stream);

  cuda::DecodeGateSequence view();
  /// A layer's part of view().keys and view().open.
  std::uint16_t* keys(int layer);
  std::uint16_t* open(int layer);
  std::int64_t capacity() const { return capacity_; }
  /// Waits for the device.
  DecodeDensity density() const;

 private:
  /// Keys of one block in all layers.
  std::int64_t block_size() const { return layers_ * kv_heads_ * gate_->dim; }
  void reserve(std::int64_t blocks, std::int64_t kept, cudaStream_t stream);

  std::shared_ptr<const DeviceDecodeGate> gate_;
  std::int64_t layers_, kv_heads_, open_size_;  // open_size_: of one layer
  std::int64_t capacity_ = 0;                   // blocks
  std::int64_t tokens_ = 0;
  DeviceHalves keys_, open_;
  cuda::DeviceArray<std::uint64_t> selected_{1};
  std::int64_t total_blocks_ = 0, dense_blocks_ = 0;  // dense_blocks_: of layers before the gate's first
};

}  // namespace seer
