// The CUDA backend's place in a build without CUDA.
#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/decode_gate.h"
#include "cuda/gate.h"
#include "cuda/gate_train.h"
#include "cuda/pooled_target.h"
#include "cuda/rope_pool.h"
#include "cuda/sample.h"
#include "cuda/select.h"

namespace seer::cuda {

bool available(std::string* reason) {
  if (reason != nullptr) *reason = "built without CUDA";
  return false;
}

DeviceInfo device_info() { fail("device_info: this program was built without CUDA"); }

void attention_prefill(const PrefillAttentionParams&, Stream) {
  fail("attention_prefill: this program was built without CUDA");
}

std::size_t attention_decode_workspace(const DecodeAttentionParams&) { return 0; }

void attention_decode(const DecodeAttentionParams&, Stream) {
  fail("attention_decode: this program was built without CUDA");
}

std::size_t pooled_target_workspace(std::int64_t) { return 0; }

void attention_with_target(const PrefillAttentionParams&, const PooledTargetOutput&, Stream) {
  fail("attention_with_target: this program was built without CUDA");
}

struct GateTraining::Impl {};

GateTraining::GateTraining(const GateTrainShape&, std::span<const GateTrainSequence>) {
  fail("distillation: this program was built without CUDA");
}

GateTraining::~GateTraining() = default;

void GateTraining::upload(Matrix, int, const float*, const float*, const float*) {}

void GateTraining::download(Matrix, int, float*, float*, float*) const {}

std::vector<double> GateTraining::step(std::span<const GateTrainItem>, const AdamFactors&) { return {}; }

void rope_table(const double*, int, double, std::int64_t, std::int64_t, std::int64_t, float*, float*,
                Stream) {
  fail("rope_table: this program was built without CUDA");
}

void rope_pool(const RopePoolParams&, Stream) { fail("rope_pool: this program was built without CUDA"); }

void rope_store(const RopeStoreParams&, Stream) { fail("rope_store: this program was built without CUDA"); }

void gate_project(const GateProjectParams&, Stream) {
  fail("gate_project: this program was built without CUDA");
}

void gate_select(const GateSelectParams&, Stream) {
  fail("gate_select: this program was built without CUDA");
}

void sample(const float*, std::int64_t, std::int64_t, const TokenDraw*, std::int32_t*, Stream) {
  fail("sample: this program was built without CUDA");
}

void decode_gate_keys(const DecodeGateKeysParams&, Stream) {
  fail("decode_gate_keys: this program was built without CUDA");
}

void decode_gate(const DecodeGateTokenParams&, Stream) {
  fail("decode_gate: this program was built without CUDA");
}

void select_blocks(const SelectBlocksParams&, Stream) {
  fail("select_blocks: this program was built without CUDA");
}

void select_sink_local(const SelectParams&, int, std::int64_t, std::int64_t, std::uint64_t*, std::int64_t,
                       std::uint64_t*, Stream) {
  fail("select_sink_local: this program was built without CUDA");
}

void select_random(const SelectParams&, std::uint64_t, int, int, std::int64_t, std::int64_t, std::uint64_t*,
                   std::int64_t, std::uint64_t*, Stream) {
  fail("select_random: this program was built without CUDA");
}

void threshold_for_density(const float*, std::int64_t, int, std::int64_t, std::int64_t, double, double*,
                           void*, Stream) {
  fail("threshold_for_density: this program was built without CUDA");
}

}  // namespace seer::cuda
