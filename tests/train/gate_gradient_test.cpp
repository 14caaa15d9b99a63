#include "train/gate_gradient.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/tensor_file.h"
#include "ops/attention.h"
#include "support/compare.h"
#include "support/golden.h"

namespace seer {
namespace {

using Json = nlohmann::json;

ModelConfig model_of(int heads, int kv_heads, int head_dim, double theta) {
  ModelConfig model;
  model.num_layers = 1;
  model.num_heads = heads;
  model.num_kv_heads = kv_heads;
  model.head_dim = head_dim;
  model.rope.theta = theta;
  model.max_position_embeddings = model.rope.max_position_embeddings = 1 << 17;
  return model;
}

/// A sample that owns what it points to.
struct OwnedSample {
  std::vector<float> q, k;
  std::vector<Float16> target;
  std::vector<float> cos, sin;
  GateSample sample;

  /// q [n, heads, q_width], k [n, kv_heads, k_width], target [heads, n, n].
  OwnedSample(const GateShape& shape, const ModelConfig& model, std::int64_t n,
              const std::vector<float>& q_rows, const std::vector<float>& k_rows,
              const std::vector<float>& targets) {
    const auto by_head = [n](const std::vector<float>& rows, int heads, int width) {
      std::vector<float> out;
      for (int head = 0; head < heads; ++head)
        for (std::int64_t i = 0; i < n; ++i)
          for (int d = 0; d < width; ++d)
            out.push_back(rows[static_cast<std::size_t>((i * heads + head) * width + d)]);
      return out;
    };
    q = by_head(q_rows, shape.num_heads, shape.q_width);
    k = by_head(k_rows, shape.num_kv_heads, shape.k_width);
    for (std::int64_t row = 0; row < shape.num_heads * n; ++row)
      for (std::int64_t j = 0; j <= row % n; ++j)
        target.push_back(to_float16(targets[static_cast<std::size_t>(row * n + j)]));
    cos.resize(static_cast<std::size_t>(n * shape.dim / 2));
    sin.resize(cos.size());
    RopeTable(model.rope, shape.dim, n * kBlockSize).fill(0, kBlockSize, n, cos.data(), sin.data());
    sample = {
        .n = n, .q = q.data(), .k = k.data(), .target = target.data(), .cos = cos.data(), .sin = sin.data()};
  }
};

Buffer<float> random_buffer(std::int64_t size, unsigned seed, float scale) {
  Buffer<float> buffer(size);
  test::fill_normal({buffer.data(), static_cast<std::size_t>(size)}, seed, scale);
  return buffer;
}

std::vector<float> random_vector(std::int64_t size, unsigned seed) {
  std::vector<float> values(static_cast<std::size_t>(size));
  test::fill_normal(values, seed);
  return values;
}

TEST(GateGradient, IsTheLossesSlope) {
  struct Case {
    const char* type;
    int heads, kv_heads, hidden;
    bool force_double;
    GateLoss loss;
  };
  for (const Case& c : {Case{"Qavg_Kmaxminavg", 4, 2, 16, false, GateLoss::kRow},
                        {"Qavg_Kmaxminavg", 3, 1, 16, false, GateLoss::kReference},
                        {"Qavg_Kmaxminavg", 4, 2, 16, true, GateLoss::kRow},
                        {"Qmaxminavg_Kmaxavg", 4, 2, 24, false, GateLoss::kReference}}) {
    SCOPED_TRACE(std::string(c.type) + (c.force_double ? " double" : ""));
    const ModelConfig model = model_of(c.heads, c.kv_heads, 16, 10000);
    GateConfig config = parse_gate_type(c.type);
    config.gate_hidden_size = c.hidden;
    config.force_double = c.force_double;
    const GateShape shape(config, model);
    const std::int64_t n = 70;  // more than one stripe of rows
    auto target = random_vector(c.heads * n * n, 1);
    for (float& value : target) value *= 2;
    causal_softmax(Context(1), target.data(), c.heads, n, 0, n);
    const OwnedSample owned(shape, model, n, random_vector(n * c.heads * shape.q_width, 2),
                            random_vector(n * c.kv_heads * shape.k_width, 3), target);
    GateLayer weights{.k_weight = random_buffer(shape.k_group() * c.kv_heads, 4, 0.2f),
                      .q_weight = random_buffer(shape.q_group() * c.kv_heads, 5, 0.2f)};
    GateGradient worker(shape);
    std::vector<float> d_k(static_cast<std::size_t>(weights.k_weight.size()), 0.0f);
    std::vector<float> d_q(static_cast<std::size_t>(weights.q_weight.size()), 0.0f);
    const auto loss = [&](bool keep) {
      std::vector<float> k_sink(d_k.size()), q_sink(d_q.size());
      double total = 0;
      for (int kv = 0; kv < c.kv_heads; ++kv)
        total += worker.backward(
            owned.sample, kv, weights, c.loss, 1.0, (keep ? d_k : k_sink).data() + kv * shape.k_group(),
            shape.has_q_linear ? (keep ? d_q : q_sink).data() + kv * shape.q_group() : nullptr);
      return total;
    };
    const double at = loss(true);
    EXPECT_TRUE(std::isfinite(at));
    for (auto* pair : {&d_k, &d_q}) {
      if (pair->empty()) continue;
      Buffer<float>& values = pair == &d_k ? weights.k_weight : weights.q_weight;
      // Along a random direction, and along the gradient itself.
      for (const bool along_gradient : {false, true}) {
        auto direction = along_gradient ? *pair : random_vector(values.size(), 6);
        double norm = 0, slope = 0;
        for (const float x : direction) norm += static_cast<double>(x) * x;
        norm = std::sqrt(norm);
        for (std::size_t i = 0; i < direction.size(); ++i) slope += (*pair)[i] * (direction[i] / norm);
        const std::vector<float> before(values.begin(), values.end());
        const double step = 0.02;
        const auto moved = [&](double by) {
          for (std::size_t i = 0; i < before.size(); ++i)
            values[static_cast<std::int64_t>(i)] = static_cast<float>(before[i] + by * direction[i] / norm);
          const double value = loss(false);
          std::copy(before.begin(), before.end(), values.begin());
          return value;
        };
        // Differences of a loss whose scores are float32: fourth order, so that the step can be wide.
        const double numeric =
            (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12 * step);
        double size = 0;
        for (const float x : *pair) size += static_cast<double>(x) * x;
        EXPECT_NEAR(numeric, slope, 2e-3 * std::sqrt(size)) << "along the gradient: " << along_gradient;
      }
    }
  }
}

TEST(GateGradient, SharesAddUp) {
  const ModelConfig model = model_of(2, 1, 16, 10000);
  GateConfig config;
  config.gate_hidden_size = 16;
  const GateShape shape(config, model);
  const std::int64_t n = 5;
  auto target = random_vector(2 * n * n, 1);
  causal_softmax(Context(1), target.data(), 2, n, 0, n);
  const OwnedSample owned(shape, model, n, random_vector(n * 2 * 16, 2), random_vector(n * 48, 3), target);
  const GateLayer weights{.k_weight = random_buffer(shape.k_group(), 4, 0.2f)};
  GateGradient worker(shape);
  std::vector<float> once(static_cast<std::size_t>(shape.k_group()), 0.0f), twice = once;
  worker.backward(owned.sample, 0, weights, GateLoss::kRow, 1.0, once.data(), nullptr);
  worker.backward(owned.sample, 0, weights, GateLoss::kRow, 0.25, twice.data(), nullptr);
  worker.backward(owned.sample, 0, weights, GateLoss::kRow, 0.75, twice.data(), nullptr);
  EXPECT_TRUE(test::all_close(twice, once, 1e-6));
}

TEST(GoldenDistill, TargetLossAndGradient) {
  const auto files = test::golden_files("distill", ".safetensors");
  if (files.empty()) GTEST_SKIP() << "no golden distillation cases";
  for (const auto& file : files) {
    SCOPED_TRACE(file.filename().string());
    const TensorStore store = TensorStore::open_safetensors(file.string());
    const Json json = Json::parse(store.metadata().at("case"));
    const std::int64_t tokens = json.at("S"), n = blocks_for(tokens);
    const int heads = json.at("Hq"), kv_heads = json.at("Hk"), head_dim = json.at("D");
    const ModelConfig model = model_of(heads, kv_heads, head_dim, json.at("rope_theta"));
    GateConfig config = parse_gate_type(json.at("gate"));
    config.gate_hidden_size = json.at("gate_hidden");
    const GateShape shape(config, model);
    const Context context(2);

    // The target, by the attention kernel.
    const auto q_rope = store.get("q_rope").to_floats(), k_rope = store.get("k_rope").to_floats();
    const std::vector<float> no_values(k_rope.size(), 0.0f);
    std::vector<std::int32_t> pages(static_cast<std::size_t>(n));
    for (std::size_t page = 0; page < pages.size(); ++page) pages[page] = static_cast<std::int32_t>(page);
    const std::int64_t page_bytes = PagedKv::page_bytes(DType::kF32, kv_heads, head_dim);
    Buffer<std::byte> pool(n * page_bytes);
    std::fill(pool.begin(), pool.end(), std::byte{0});
    const PagedKv kv{.pool = pool.data(),
                     .page_stride = page_bytes,
                     .page_table = pages.data(),
                     .num_kv_heads = kv_heads,
                     .head_dim = head_dim,
                     .length = tokens};
    kv_store(context, kv, 0, tokens, k_rope.data(), no_values.data());
    std::vector<float> target(static_cast<std::size_t>(heads * n * n), NAN);
    attention_prefill(context, {.q = q_rope.data(),
                                .num_tokens = tokens,
                                .num_heads = heads,
                                .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                                .kv = kv,
                                .pooled_target = target.data(),
                                .pooled_target_stride = n});
    EXPECT_TRUE(test::all_close(target, store.get("target_f64").as<double>(), 2e-6, 1e-4));

    // The loss of the golden scores: the mean over rows n / 4 and later, upper triangle included.
    const double loss = store.get("loss_f64").as<double>()[0];
    auto scores = store.get("scores").to_floats();
    const double weight = 1.0 / static_cast<double>(heads * (n - n / 4) * n);
    EXPECT_NEAR(gate_kl_loss(context, scores.data(), target.data(), heads, n, n, n / 4, weight, nullptr),
                loss, 1e-4 * loss);

    // Loss and gradient of the gate, from its pooled inputs.
    const auto q = store.get("q").to_floats(), k = store.get("k").to_floats();
    std::vector<float> q_pooled(static_cast<std::size_t>(n * heads * shape.q_width));
    std::vector<float> k_pooled(static_cast<std::size_t>(n * kv_heads * shape.k_width));
    block_pool(context, q.data(), tokens, heads, head_dim, model.q_size(), config.q_pools, q_pooled.data());
    block_pool(context, k.data(), tokens, kv_heads, head_dim, model.kv_size(), config.k_pools,
               k_pooled.data());
    const OwnedSample owned(shape, model, n, q_pooled, k_pooled, target);
    const auto to_buffer = [&](const std::string& name) {
      Buffer<float> buffer;
      if (!store.contains(name)) return buffer;
      const auto values = store.get(name).to_floats();
      buffer = Buffer<float>(static_cast<std::int64_t>(values.size()));
      std::copy(values.begin(), values.end(), buffer.begin());
      return buffer;
    };
    const GateLayer weights{.k_weight = to_buffer("mask_linear_k.weight"),
                            .q_weight = to_buffer("mask_linear_q.weight")};
    std::vector<float> d_k(static_cast<std::size_t>(weights.k_weight.size()), 0.0f);
    std::vector<float> d_q(static_cast<std::size_t>(weights.q_weight.size()), 0.0f);
    GateGradient worker(shape);
    double total = 0;
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head)
      total += worker.backward(owned.sample, kv_head, weights, GateLoss::kReference, 1.0,
                               d_k.data() + kv_head * shape.k_group(),
                               shape.has_q_linear ? d_q.data() + kv_head * shape.q_group() : nullptr);
    EXPECT_NEAR(total, 10 * loss, 1e-4 * 10 * loss);
    const auto gradient = store.get("grad_f64").to_floats();
    EXPECT_GE(test::cosine(d_k, gradient), 0.9999);
    EXPECT_NEAR(test::standard_deviation(d_k), test::standard_deviation(gradient),
                1e-3 * test::standard_deviation(gradient));
  }
}

}  // namespace
}  // namespace seer
