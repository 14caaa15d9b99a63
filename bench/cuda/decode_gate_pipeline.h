// The decode gate on random data of several layers and one length, for benchmarks.
#pragma once

#include <cstdint>

#include "cuda/decode_gate.h"
#include "cuda/device_array.h"

namespace seer::cuda {

struct DecodeGateShape {
  int layers = 1;  // with their own weights and keys
  int batch = 1;
  std::int64_t length = 0;
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;  // and the gate's size
  DType dtype = DType::kBF16;
};

class DecodeGatePipeline {
 public:
  /// Keeps `kept` blocks.
  DecodeGatePipeline(const DecodeGateShape& shape, std::int64_t kept);

  /// One token of each sequence in a block that is not full yet, as 63 of 64 are.
  void run(int layer, Stream stream);
  /// Share of the blocks that run() chooses.
  double density();

  const std::uint64_t* mask() const { return mask_.data(); }
  std::int64_t mask_words() const { return mask_words_; }

 private:
  DecodeGateShape shape_;
  std::int64_t blocks_, mask_words_;
  DeviceArray<std::uint16_t> qkv_, q_weights_, k_weights_, keys_, open_;
  DeviceArray<float> norm_, cos_, sin_;
  DeviceArray<std::int32_t> positions_;
  DeviceArray<DecodeGateSequence> sequences_;
  DeviceArray<std::uint64_t> mask_, selected_;
  DecodeGateTokenParams params_;
};

}  // namespace seer::cuda
