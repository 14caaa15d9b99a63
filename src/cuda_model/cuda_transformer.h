// The forward pass on a GPU, through the kernels of src/cuda.
#pragma once

#include <cstdint>
#include <memory>

#include "model/transformer.h"

namespace seer {

/// A model on the current GPU. Weights are copied there (and rounded to options.gpu_dtype where they have
/// another type); activations between the layers are float32. Prefill does not wait for the device before
/// its end (but for an observer), and decoding replays a graph per number of sequences, which are decoded
/// with one decode gate and rule or all densely. Selectors must be make_selector's. head_dim is 64 or 128.
/// Throws Error when the program was built without CUDA, and when the memory does not suffice, with the
/// sizes.
std::unique_ptr<Transformer> make_cuda_transformer(const ModelWeights& weights, const ModelConfig& config,
                                                   const Context& context, const TransformerOptions& options);

/// The same with weights drawn on the device: uniform, of variance 1 / inputs. For measuring speed.
std::unique_ptr<Transformer> make_random_cuda_transformer(std::uint64_t seed, const ModelConfig& config,
                                                          const Context& context,
                                                          const TransformerOptions& options);

}  // namespace seer
