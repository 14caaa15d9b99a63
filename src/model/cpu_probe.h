// What an observer asks about a layer of a prefill on the CPU.
#pragma once

#include "core/buffer.h"
#include "core/context.h"
#include "model/transformer.h"

namespace seer {

class CpuProbe final : public LayerProbe {
 public:
  /// Both are kept by reference.
  CpuProbe(const Context& context, const SelectInput& input, int num_heads)
      : context_(context), input_(input), num_heads_(num_heads) {}
  void select(Selector& selector, BlockMask& mask) override;
  const float* log_sum_exp(const BlockMask& mask) override;

 private:
  const Context& context_;
  const SelectInput& input_;
  int num_heads_;
  Buffer<float> out_, lse_;
};

}  // namespace seer
