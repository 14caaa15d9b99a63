// Writing keys and values into the pages' tile layouts (ops/attention.h).
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/attention.h"

namespace seer::cpu {

/// As seer::kv_store, for checked arguments.
void kv_store(const Context& context, const PagedKv& kv, std::int64_t first_position, std::int64_t num_tokens,
              const float* k, const float* v);

}  // namespace seer::cpu
