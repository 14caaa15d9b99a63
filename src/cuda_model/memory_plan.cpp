#include "cuda_model/memory_plan.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "core/check.h"
#include "cuda/check.h"
#include "cuda_model/decode_state.h"
#include "cuda_model/device_decode_gate.h"
#include "cuda_model/prefill_scratch.h"
#include "cuda_model/prefill_state.h"

namespace seer {
namespace {

/// Small arrays and the rounding of every allocation take some more, unless all is there already.
std::int64_t with_slack(std::int64_t bytes) { return bytes == 0 ? 0 : bytes + (std::int64_t{64} << 20); }

/// What an array takes more when it must hold `size` elements: it is freed before it grows.
template <class T>
std::int64_t growth(const cuda::DeviceArray<T>& array, std::int64_t size) {
  return std::max<std::int64_t>(0, size - array.size()) * static_cast<std::int64_t>(sizeof(T));
}

}  // namespace

DeviceMemory device_memory() {
  std::size_t free = 0, total = 0;
  cuda::check(cudaMemGetInfo(&free, &total), "device memory");
  return {static_cast<std::int64_t>(free), static_cast<std::int64_t>(total)};
}

std::int64_t largest_fitting(const MemoryDemand& demand, std::int64_t bytes) {
  std::int64_t fits = 0, above = demand.count / demand.step + 1;  // in steps
  while (above - fits > 1) {
    const std::int64_t middle = fits + (above - fits) / 2;
    (demand.bytes(middle * demand.step) <= bytes ? fits : above) = middle;
  }
  return fits * demand.step;
}

void require_memory(const MemoryDemand& demand, const DeviceMemory& memory) {
  const std::int64_t needed = demand.bytes(demand.count);
  if (needed <= memory.free_bytes) return;
  fail("GPU memory: {} {} {}{} needs {:.2f} GiB more, {:.2f} of {:.2f} GiB are free; up to {} {} would fit",
       demand.what, demand.count, demand.unit, demand.beside, gibibytes(needed), gibibytes(memory.free_bytes),
       gibibytes(memory.total_bytes), largest_fitting(demand, memory.free_bytes), demand.unit);
}

void CudaTransformer::plan_context() const {
  // The cosines and sines of every position.
  const auto bytes = [&](std::int64_t tokens) { return with_slack(tokens * config_.head_dim * 4); };
  require_memory({.what = "--max-context: a context of",
                  .count = max_context_,
                  .unit = "tokens",
                  .step = kBlockSize,
                  .bytes = bytes},
                 device_memory());
}

void CudaTransformer::plan_prefill(const PrefillRequest& request, const Selection& selection,
                                   const DeviceDecodeState* decode_gate, std::int64_t wanted_chunk) const {
  const PrefillScratch& s = *prefill_;
  const ModelConfig& c = config_;
  const ObserverWants wants = request.observer != nullptr ? request.observer->wants() : ObserverWants{};
  const bool all_logits = request.nll != nullptr || request.on_logits;
  const bool target =
      wants.target || (!selection.is_dense() && selection.settings().kind == SelectorKind::kOracle);
  const auto bytes = [&](std::int64_t tokens) {
    const std::int64_t blocks = blocks_for(tokens), chunk = std::min(wanted_chunk, blocks * kBlockSize);
    std::int64_t sum = pages_->bytes_for(blocks);
    sum += growth(s.x, chunk * c.hidden_size) + growth(s.normed, chunk * c.hidden_size);
    sum += growth(s.qkv, chunk * (c.q_size() + 2 * c.kv_size())) + growth(s.attention, chunk * c.q_size());
    sum +=
        growth(s.gate_up, chunk * 2 * c.intermediate_size) + growth(s.activated, chunk * c.intermediate_size);
    sum += growth(s.lse, chunk * c.num_heads);
    sum += growth(s.gate_keys, selection.gate_keys(c, blocks));
    sum += growth(s.logits, c.vocab_size * (all_logits ? logits_rows(chunk, c.vocab_size) : 1));
    if (target) sum += growth(s.target, c.num_heads * blocks_for(chunk) * blocks);
    if (c.rope.type == RopeType::kDynamic && tokens > c.max_position_embeddings)
      sum += growth(s.rope.cos, tokens * c.head_dim / 2) + growth(s.rope.sin, tokens * c.head_dim / 2);
    if (decode_gate != nullptr) sum += decode_gate->bytes_to_begin(tokens, max_context_);
    if (wants.probe) sum += growth(s.probe_out, chunk * c.q_size());
    return with_slack(sum);
  };
  const std::int64_t held = pages_->tokens_held();
  require_memory({.what = "a prompt of",
                  .count = static_cast<std::int64_t>(request.tokens.size()),
                  .unit = "tokens",
                  .beside = held == 0 ? "" : fmt::format(" (beside {} of other sequences)", held),
                  .step = kBlockSize,
                  .bytes = bytes},
                 device_memory());
}

void CudaTransformer::plan_decode(int batch) const {
  const DecodeState& d = *decode_;
  const ModelConfig& c = config_;
  const auto bytes = [&](std::int64_t b) {
    std::int64_t sum = growth(d.page_table, b * blocks_for(max_context_));
    sum += growth(d.x, b * c.hidden_size) + growth(d.normed, b * c.hidden_size);
    sum += growth(d.qkv, b * (c.q_size() + 2 * c.kv_size())) + growth(d.attention, b * c.q_size());
    sum += growth(d.gate_up, b * 2 * c.intermediate_size) + growth(d.activated, b * c.intermediate_size);
    return with_slack(sum + growth(d.logits, b * c.vocab_size));
  };
  require_memory({.what = "decoding", .count = batch, .unit = "sequences together", .bytes = bytes},
                 device_memory());
}

}  // namespace seer
