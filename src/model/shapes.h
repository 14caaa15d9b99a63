// Shapes of published models by name, to measure speed with random weights where no model folder is at hand.
#pragma once

#include <span>
#include <string_view>

#include "model/config.h"

namespace seer {

/// The names that named_shape() knows.
std::span<const std::string_view> shape_names();

/// The configuration of a model as its publisher's config.json has it: "llama-3.1-8b", "qwen2.5-7b" (7 query
/// heads per KV head, biases of q, k, v) or "qwen3-8b" (norms of q and k). Throws Error, listing the names,
/// for any other.
ModelConfig named_shape(std::string_view name);

}  // namespace seer
