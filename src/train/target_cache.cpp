#include "train/target_cache.h"

#include <algorithm>
#include <filesystem>

#include "core/check.h"

namespace seer {
namespace {

constexpr const char* kFingerprint = "fingerprint";

/// Collects a prefill's layers: rows of heads that grow by chunks.
class Collector final : public LayerObserver {
 public:
  Collector(const Context& context, const ModelConfig& model, const GateConfig& gate, std::int64_t tokens)
      : context_(context),
        model_(model),
        gate_(gate),
        shape_(gate, model),
        n_(blocks_for(tokens)),
        q_(model.num_layers * shape_.num_heads * n_ * shape_.q_width),
        k_(model.num_layers * shape_.num_kv_heads * n_ * shape_.k_width),
        target_(model.num_layers * shape_.num_heads * triangle(n_)) {}

  ObserverWants wants() const override {
    return {.target = true, .q_pools = gate_.q_pools, .k_pools = gate_.k_pools};
  }

  void observe(const LayerObservation& seen) override {
    const auto place = [&](const float* pooled, int heads, int width, float* out) {
      context_.parallel_for(heads, [&](std::int64_t head, int) {
        for (std::int64_t row = 0; row < seen.rows; ++row)
          std::copy_n(pooled + (row * heads + head) * width, width,
                      out + ((seen.layer * heads + head) * n_ + seen.first_row + row) * width);
      });
    };
    place(seen.q_pooled, shape_.num_heads, shape_.q_width, q_.data());
    place(seen.k_pooled, shape_.num_kv_heads, shape_.k_width, k_.data());
    context_.parallel_for(shape_.num_heads, [&](std::int64_t head, int) {
      for (std::int64_t row = 0; row < seen.rows; ++row) {
        const float* source = seen.target + (head * seen.rows + row) * seen.target_stride;
        const std::int64_t block_row = seen.first_row + row;
        std::transform(
            source, source + block_row + 1,
            target_.data() + (seen.layer * shape_.num_heads + head) * triangle(n_) + triangle(block_row),
            [](float value) { return to_float16(value); });
      }
    });
  }

  void write(const std::string& path, const std::string& fingerprint) const {
    const std::int64_t layers = model_.num_layers;
    const TensorToWrite tensors[] = {
        {"q", DType::kF32, {layers, shape_.num_heads, n_, shape_.q_width}, q_.data()},
        {"k", DType::kF32, {layers, shape_.num_kv_heads, n_, shape_.k_width}, k_.data()},
        {"target", DType::kF16, {layers, shape_.num_heads, triangle(n_)}, target_.data()}};
    write_safetensors(path, tensors, {{kFingerprint, fingerprint}});
  }

 private:
  const Context& context_;
  const ModelConfig& model_;
  const GateConfig& gate_;
  GateShape shape_;
  std::int64_t n_;
  Buffer<float> q_, k_;
  Buffer<Float16> target_;
};

}  // namespace

CachedSequence::CachedSequence(const std::string& path, const GateShape& shape, int layers)
    : store_(TensorStore::open_safetensors(path)), shape_(shape) {
  const TensorView& q = store_.get("q");
  SEER_CHECK(q.shape.size() == 4, "{}: q: expected 4 dimensions, found {}", path, q.shape.size());
  blocks_ = q.shape[2];
  const std::int64_t q_shape[] = {layers, shape.num_heads, blocks_, shape.q_width};
  const std::int64_t k_shape[] = {layers, shape.num_kv_heads, blocks_, shape.k_width};
  const std::int64_t target_shape[] = {layers, shape.num_heads, triangle(blocks_)};
  q_ = store_.get("q", q_shape).as<float>().data();
  k_ = store_.get("k", k_shape).as<float>().data();
  target_ = store_.get("target", target_shape).as<Float16>().data();
}

GateSample CachedSequence::sample(int layer) const {
  return {.n = blocks_,
          .q = q_ + layer * shape_.num_heads * blocks_ * shape_.q_width,
          .k = k_ + layer * shape_.num_kv_heads * blocks_ * shape_.k_width,
          .target = target_ + layer * shape_.num_heads * triangle(blocks_)};
}

std::string cached_fingerprint(const std::string& path) {
  if (!std::filesystem::exists(path)) return "";
  const TensorStore store = TensorStore::open_safetensors(path);
  const auto found = store.metadata().find(kFingerprint);
  return found == store.metadata().end() ? "" : found->second;
}

void write_cached_sequence(const std::string& path, Transformer& model, const GateConfig& gate,
                           std::span<const std::int32_t> tokens, const std::string& fingerprint,
                           const std::function<void(std::int64_t)>& on_progress) {
  Collector collector(model.context(), model.config(), gate, static_cast<std::int64_t>(tokens.size()));
  Sequence sequence = model.new_sequence();
  model.prefill(
      sequence,
      {.tokens = tokens, .observer = &collector, .want_last_logits = false, .on_progress = on_progress});
  collector.write(path, fingerprint);
}

}  // namespace seer
