// The class behind make_cuda_transformer; prefill.cpp and decode.cpp hold its halves.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "cuda/blas.h"
#include "cuda/decode_gate.h"
#include "cuda_model/cuda_transformer.h"
#include "cuda_model/device_pages.h"
#include "cuda_model/device_weights.h"
#include "cuda_model/stage_timer.h"

namespace seer {

/// A stream of its own, waited for before it goes.
class OwnedStream {
 public:
  OwnedStream() { cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "CUDA stream"); }
  ~OwnedStream() {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  cudaStream_t get() const { return stream_; }
  void wait(const char* what) const { cuda::check(cudaStreamSynchronize(stream_), what); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// cos and sin [positions, dim / 2] in device memory.
struct DeviceRope {
  DeviceFloats cos, sin;
  /// Positions 0, step, 2 step, ...
  void fill(const RopeTable& table, std::int64_t step, std::int64_t count, cudaStream_t stream);

 private:
  cuda::DeviceArray<double> inv_freq_;
};

struct DeviceDecodeGate;
class DeviceDecodeState;

class CudaTransformer final : public Transformer {
 public:
  CudaTransformer(DeviceWeights weights, const ModelConfig& config, const Context& context,
                  const TransformerOptions& options);
  ~CudaTransformer() override;

  Device device() const override { return Device::kCuda; }
  std::int64_t matrix_bytes() const override { return weights_.matrix_bytes(); }
  DecodeDensity decode_density(const Sequence& sequence) const override;

 private:
  struct PrefillScratch;
  struct ChunkView;
  struct Selection;
  struct DecodeState;
  class Probe;
  CudaTransformer(DeviceWeights weights, const ModelConfig& config, const Context& context,
                  const TransformerOptions& options, std::shared_ptr<OwnedStream> stream);
  CudaTransformer(DeviceWeights weights, const ModelConfig& config, const Context& context,
                  const TransformerOptions& options, std::shared_ptr<OwnedStream> stream,
                  std::shared_ptr<DevicePages> pages);

  PrefillResult run_prefill(Sequence& sequence, const PrefillRequest& request) override;
  void run_decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens, float* logits,
                  std::span<const TokenDraw> draws, std::int32_t* next) override;

  /// What becomes of a product: rounded to dtype, kept in float32, or added to float32.
  enum class Output { kRounded, kFloat, kAdded };
  /// y [m, n] = x [m, k] w^T (+ bias); bias has y's type.
  void product(const void* x, std::int64_t m, const std::uint16_t* w, std::int64_t n, std::int64_t k, void* y,
               const void* bias = nullptr, Output output = Output::kRounded);
  /// float32 logits [rows, vocab] of residual rows x; `normed` holds rows x hidden values.
  void compute_logits(const float* x, std::int64_t rows, std::uint16_t* normed, float* logits);
  /// The MLP on residual rows x.
  void run_mlp(const DeviceLayer& layer, std::int64_t rows, float* x, std::uint16_t* normed,
               std::uint16_t* gate_up, std::uint16_t* activated);

  // Throw Error when what comes will not fit, before any of it is computed.
  void plan_context() const;
  /// decode_gate: of the sequence, or nullptr.
  void plan_prefill(const PrefillRequest& request, const Selection& selection,
                    const DeviceDecodeState* decode_gate, std::int64_t wanted_chunk) const;
  void plan_decode(int batch) const;
  void prefill_chunk(const PrefillRequest& request, Selection& selection, const ChunkView& chunk);
  void prefill_layer(const PrefillRequest& request, Selection& selection, const ChunkView& chunk, int layer);
  /// mask nullptr: dense.
  void attend(const ChunkView& chunk, int layer, const std::uint64_t* mask);
  /// Dense, and the target of the chunk.
  void attend_with_target(const ChunkView& chunk, int layer);
  cuda::PrefillAttentionParams prefill_attention(const ChunkView& chunk, int layer,
                                                 const std::uint64_t* mask);
  /// False: dense.
  bool select(Selection& selection, const ChunkView& chunk, int layer);
  void observe(LayerObserver& observer, const ObserverWants& wants, const Selection& selection,
               const ChunkView& chunk, int layer, bool sparse);
  void score_chunk(const PrefillRequest& request, const ChunkView& chunk);

  void reserve_decode(int batch);
  void upload_decode_state(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens);
  void upload_draws(std::span<const TokenDraw> draws, int batch);
  void launch_decode(int batch);

  // The decode gate: decode_gate.cpp.
  DeviceDecodeState* decode_state_of(const Sequence& sequence) const;
  const DeviceRope& decode_gate_rope(int dim);
  cuda::DecodeGateLayerParams decode_gate_layer(const DeviceDecodeGate& gate, int index);
  void take_prompt_keys(DeviceDecodeState& state, int layer, const std::uint16_t* k, std::int64_t first,
                        std::int64_t tokens);
  void choose_decoding(std::span<Sequence* const> sequences);
  cuda::DecodeGateTokenParams decode_gate_params(int batch);
  void reserve_decode_gate();
  void upload_decode_gate(std::span<Sequence* const> sequences);
  const std::uint64_t* select_for_decode(int batch, int layer);

  DType dtype() const { return weights_.dtype; }
  float scale() const;

  DeviceWeights weights_;
  std::shared_ptr<OwnedStream> stream_;
  std::shared_ptr<DevicePages> pages_;
  cuda::Blas blas_;
  DeviceRope rope_;  // of every position of the context
  StageTimer timer_;
  std::unique_ptr<PrefillScratch> prefill_;
  std::unique_ptr<DecodeState> decode_;
};

}  // namespace seer
