// From ModelOptions to a model that runs.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "model/transformer.h"
#include "seer/options.h"

namespace seer {

/// Throws Error saying why when the device cannot be used.
Device device_of(const ModelOptions& options);

/// `weights` is the stored dtype, which "auto" follows on a GPU. Throws Error for a dtype that the device
/// lacks.
TransformerOptions transformer_options(const ModelOptions& options, DType weights);

/// "float32", "bfloat16" or "float16"
std::string_view dtype_name(Device device, const TransformerOptions& options);

/// `config` is the folder's. Throws Error naming files and tensors that do not fit.
std::unique_ptr<Transformer> load_transformer(const std::string& folder, const ModelConfig& config,
                                              const ModelOptions& options);

}  // namespace seer
