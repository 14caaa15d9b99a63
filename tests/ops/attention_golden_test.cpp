// Attention against outputs and targets computed elsewhere (tests/support/golden.h).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "io/tensor_file.h"
#include "ops/attention.h"
#include "support/compare.h"
#include "support/golden.h"

namespace seer {
namespace {

/// Keys and values in pages of one sequence.
class Pages {
 public:
  Pages(const Context& context, std::int64_t length, int kv_heads, int head_dim, const std::vector<float>& k,
        const std::vector<float>& v) {
    const std::int64_t blocks = blocks_for(length);
    for (std::int64_t i = 0; i < blocks; ++i) table_.push_back(static_cast<std::int32_t>(i));
    kv.page_stride = PagedKv::page_bytes(kv.dtype, kv_heads, head_dim);
    pool_ = Buffer<std::byte>(blocks * kv.page_stride);
    std::fill(pool_.begin(), pool_.end(), std::byte{0});
    kv.pool = pool_.data();
    kv.page_table = table_.data();
    kv.num_kv_heads = kv_heads;
    kv.head_dim = head_dim;
    kv.length = length;
    kv_store(context, kv, 0, length, k.data(), v.data());
  }

  PagedKv kv;

 private:
  Buffer<std::byte> pool_;
  std::vector<std::int32_t> table_;
};

/// Rotate-half in place, x [length, heads, dim], angles rounded to float32 as the golden data's.
void rotate(std::vector<float>& x, std::int64_t length, std::int64_t heads, std::int64_t dim, double theta) {
  for (std::int64_t t = 0; t < length; ++t) {
    for (std::int64_t i = 0; i < dim / 2; ++i) {
      const float frequency =
          1.0f / std::pow(static_cast<float>(theta), static_cast<float>(2 * i) / static_cast<float>(dim));
      const float angle = static_cast<float>(t) * frequency;
      const float cosine = std::cos(angle), sine = std::sin(angle);
      for (std::int64_t h = 0; h < heads; ++h) {
        float* row = x.data() + (t * heads + h) * dim;
        const float first = row[i], second = row[i + dim / 2];
        row[i] = first * cosine - second * sine;
        row[i + dim / 2] = second * cosine + first * sine;
      }
    }
  }
}

TEST(AttentionGolden, PrefillOutputs) {
  const auto files = test::golden_files("prefill", ".safetensors");
  if (files.empty()) GTEST_SKIP() << "no golden data";
  for (const auto& file : files) {
    const TensorStore store = TensorStore::open_safetensors(file.string());
    const auto parameters = nlohmann::json::parse(store.metadata().at("case"));
    const TensorView& q_tensor = store.get("q");
    const std::int64_t length = q_tensor.shape[1], heads = q_tensor.shape[2], dim = q_tensor.shape[3];
    const std::int64_t kv_heads = store.get("k").shape[2], blocks = blocks_for(length);
    std::vector<float> q = q_tensor.to_floats(), k = store.get("k").to_floats();
    rotate(q, length, heads, dim, parameters.at("rope_theta").get<double>());
    rotate(k, length, kv_heads, dim, parameters.at("rope_theta").get<double>());
    const auto rows = store.get("out_rows").as<std::int32_t>();
    for (const CpuIsa isa : available_cpu_isas()) {
      const Context context(2, isa);
      const Pages pages(context, length, static_cast<int>(kv_heads), static_cast<int>(dim), k,
                        store.get("v").to_floats());
      for (const auto& [name, tensor] : store.tensors()) {
        if (!name.starts_with("out_") || name == "out_rows") continue;
        BlockMask mask(static_cast<int>(heads), 0, blocks);
        if (name != "out_dense") {
          const auto selected = store.get("mask_" + name.substr(4)).as<std::uint8_t>();
          for (int head = 0; head < heads; ++head) {
            for (std::int64_t i = 0; i < blocks; ++i) {
              for (std::int64_t j = 0; j <= i; ++j)
                if (selected[static_cast<std::size_t>((head * blocks + i) * blocks + j)] != 0)
                  mask.set(head, i, j);
              if (mask.count(head, i) == 0) mask.set(head, i, i);
            }
          }
        }
        std::vector<float> out(q.size(), std::numeric_limits<float>::quiet_NaN());
        PrefillAttentionParams params;
        params.q = q.data();
        params.out = out.data();
        params.num_tokens = length;
        params.num_heads = static_cast<int>(heads);
        params.scale = 1 / std::sqrt(static_cast<float>(dim));
        params.kv = pages.kv;
        params.mask = name == "out_dense" ? nullptr : &mask;
        attention_prefill(context, params);
        std::vector<float> kept;
        for (const std::int32_t row : rows)
          kept.insert(kept.end(), out.begin() + row * heads * dim, out.begin() + (row + 1) * heads * dim);
        EXPECT_TRUE(test::all_close(kept, tensor.as<float>(), 1e-4))
            << file << " " << name << " " << name_of(isa);
      }
    }
  }
}

TEST(AttentionGolden, PooledTarget) {
  const auto files = test::golden_files("distill", ".safetensors");
  if (files.empty()) GTEST_SKIP() << "no golden data";
  for (const auto& file : files) {
    const TensorStore store = TensorStore::open_safetensors(file.string());
    const TensorView& q_tensor = store.get("q_rope");
    const std::int64_t length = q_tensor.shape[1], heads = q_tensor.shape[2], dim = q_tensor.shape[3];
    const std::int64_t kv_heads = store.get("k_rope").shape[2], blocks = blocks_for(length);
    const std::vector<float> q = q_tensor.to_floats(), k = store.get("k_rope").to_floats();
    for (const CpuIsa isa : available_cpu_isas()) {
      const Context context(2, isa);
      const Pages pages(context, length, static_cast<int>(kv_heads), static_cast<int>(dim), k, k);
      std::vector<float> target(static_cast<std::size_t>(heads * blocks * blocks),
                                std::numeric_limits<float>::quiet_NaN());
      PrefillAttentionParams params;
      params.q = q.data();
      params.num_tokens = length;
      params.num_heads = static_cast<int>(heads);
      params.scale = 1 / std::sqrt(static_cast<float>(dim));
      params.kv = pages.kv;
      params.pooled_target = target.data();
      params.pooled_target_stride = blocks;
      attention_prefill(context, params);
      EXPECT_TRUE(test::all_close(target, store.get("target_f64").as<double>(), 2e-6))
          << file << " " << name_of(isa);
    }
  }
}

}  // namespace
}  // namespace seer
