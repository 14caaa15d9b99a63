#include "cuda_model/probe.h"

#include <algorithm>

#include "core/check.h"
#include "cuda_model/prefill_scratch.h"

namespace seer {

void CudaTransformer::Probe::select(Selector& selector, BlockMask& mask) {
  PrefillScratch& s = *model_.prefill_;
  const int heads = model_.config_.num_heads;
  Selection selection = Selection::of(selector, chunk_.total);
  if (selection.settings().kind == SelectorKind::kGate) {
    SEER_CHECK(prepared_.gate != nullptr && prepared_.settings().gate == selection.settings().gate,
               "prefill: expected probes of the gate that the observer named");
    selection.gate = prepared_.gate;
  }
  mask.reset(heads, chunk_.first_row(), chunk_.rows());
  if (!model_.select(selection, chunk_, layer_)) return mask.set_all();
  const auto words = download(s.mask.data(), heads * chunk_.rows() * mask.words(), *model_.stream_);
  std::copy(words.begin(), words.end(), mask.row(0, 0));
  // It counts what the prefill itself selects.
  cuda::check(cudaMemsetAsync(s.selected.data(), 0, s.selected.bytes(), model_.stream_->get()), "prefill");
}

const float* CudaTransformer::Probe::log_sum_exp(const BlockMask& mask) {
  PrefillScratch& s = *model_.prefill_;
  const cudaStream_t stream = model_.stream_->get();
  const std::int64_t words = mask.num_heads() * mask.num_rows() * mask.words();
  const std::int64_t values = model_.config_.num_heads * chunk_.tokens;
  s.mask.reserve_discard(words);
  s.probe_out.reserve_discard(chunk_.tokens * model_.config_.q_size());
  s.probe_lse.reserve_discard(values);
  cuda::check(
      cudaMemcpyAsync(s.mask.data(), mask.row(0, 0), static_cast<std::size_t>(words) * sizeof(std::uint64_t),
                      cudaMemcpyHostToDevice, stream),
      "prefill");
  cuda::PrefillAttentionParams attention = model_.prefill_attention(chunk_, layer_, s.mask.data());
  attention.out = s.probe_out.data();
  attention.lse = s.probe_lse.data();
  cuda::attention_prefill(attention, stream);
  lse_ = download(s.probe_lse.data(), values, *model_.stream_);
  return lse_.data();
}

}  // namespace seer
