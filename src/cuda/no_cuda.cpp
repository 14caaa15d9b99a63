// The CUDA backend's place in a build without CUDA.
#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/gate_train.h"
#include "cuda/pooled_target.h"

namespace seer::cuda {

bool available(std::string* reason) {
  if (reason != nullptr) *reason = "built without CUDA";
  return false;
}

void attention_prefill(const PrefillAttentionParams&, Stream) {
  fail("attention_prefill: this program was built without CUDA");
}

std::size_t attention_decode_workspace(const DecodeAttentionParams&) { return 0; }

void attention_decode(const DecodeAttentionParams&, Stream) {
  fail("attention_decode: this program was built without CUDA");
}

void pooled_target(const PooledTargetParams&, Stream) {
  fail("pooled_target: this program was built without CUDA");
}

struct GateTraining::Impl {};

GateTraining::GateTraining(const GateTrainShape&, std::span<const GateTrainSequence>) {
  fail("distillation: this program was built without CUDA");
}

GateTraining::~GateTraining() = default;

void GateTraining::upload(Matrix, int, const float*, const float*, const float*) {}

void GateTraining::download(Matrix, int, float*, float*, float*) const {}

std::vector<double> GateTraining::step(std::span<const GateTrainItem>, const AdamFactors&) { return {}; }

}  // namespace seer::cuda
