#include "model/cpu_probe.h"

#include "ops/attention.h"

namespace seer {

void CpuProbe::select(Selector& selector, BlockMask& mask) {
  if (input_.layer == 0 && input_.q_offset == 0) selector.begin(input_.total_tokens);
  mask.reset(num_heads_, input_.q_offset / kBlockSize, blocks_for(input_.num_tokens));
  if (!selector.select(context_, input_, mask)) mask.set_all();
}

const float* CpuProbe::log_sum_exp(const BlockMask& mask) {
  lse_.reserve_discard(num_heads_ * input_.num_tokens);
  out_.reserve_discard(input_.num_tokens * num_heads_ * input_.kv.head_dim);
  attention_prefill(context_, {.q = input_.q,
                               .out = out_.data(),
                               .lse = lse_.data(),
                               .num_tokens = input_.num_tokens,
                               .q_offset = input_.q_offset,
                               .num_heads = num_heads_,
                               .scale = input_.scale,
                               .kv = input_.kv,
                               .mask = &mask});
  return lse_.data();
}

}  // namespace seer
