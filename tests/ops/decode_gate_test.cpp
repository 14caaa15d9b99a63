#include "ops/decode_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "ops/reference/decode_gate.h"
#include "support/inputs.h"

namespace seer {
namespace {

using test::all_close;
using test::normal;
using test::on_every_context;
using test::poisoned;

struct GateCase {
  int num_heads, num_kv_heads, head_dim, dim;
  unsigned k_pools;
  bool norms;
};
const GateCase kGates[] = {{8, 2, 64, 128, kPoolMax | kPoolMin | kPoolAvg, true},
                           {5, 1, 32, 64, kPoolMax | kPoolMin | kPoolAvg, false},
                           {4, 4, 40, 24, kPoolAvg, true},
                           {14, 2, 16, 6, kPoolMax | kPoolAvg, true}};

/// A gate with random weights.
struct RandomGate {
  explicit RandomGate(const GateCase& c)
      : q_weight(normal(std::int64_t{c.num_heads} * c.head_dim * c.dim, 1, 0.1f)),
        k_weight(normal(std::int64_t{c.num_kv_heads} * pool_count(c.k_pools) * c.head_dim * c.dim, 2, 0.1f)),
        q_norm(normal(c.dim, 3)),
        k_norm(normal(c.dim, 4)),
        params{.num_heads = c.num_heads,
               .num_kv_heads = c.num_kv_heads,
               .head_dim = c.head_dim,
               .dim = c.dim,
               .k_pools = c.k_pools,
               .q_weight = q_weight.data(),
               .k_weight = k_weight.data(),
               .q_norm = c.norms ? q_norm.data() : nullptr,
               .k_norm = c.norms ? k_norm.data() : nullptr} {}

  std::vector<float> q_weight, k_weight, q_norm, k_norm;
  DecodeGateParams params;
};

/// Cosines or sines of `count` rows of dim / 2 angles.
std::vector<float> angles(std::int64_t count, int dim, double (*function)(double)) {
  std::vector<float> table;
  for (std::int64_t i = 0; i < count * dim / 2; ++i)
    table.push_back(static_cast<float>(function(0.7 * static_cast<double>(i))));
  return table;
}

TEST(DecodeGate, QueriesMatchTheDefinition) {
  for (const GateCase& c : kGates) {
    const RandomGate gate(c);
    const auto q = normal(std::int64_t{c.num_heads} * c.head_dim, 5);
    const auto cos = angles(1, c.dim, std::cos), sin = angles(1, c.dim, std::sin);
    const auto expected = reference::decode_gate_query(gate.params, q, cos, sin);
    on_every_context([&](const Context& context) {
      auto out = poisoned(std::int64_t{c.num_kv_heads} * c.dim);
      decode_gate_query(context, gate.params, q.data(), cos.data(), sin.data(), out.data());
      // Sums of up to 512 products of size 0.1 in float32.
      EXPECT_TRUE(all_close(out, expected, 1e-5, 1e-5));
    });
  }
}

TEST(DecodeGate, KeysMatchTheDefinition) {
  for (const GateCase& c : kGates) {
    const RandomGate gate(c);
    const std::int64_t blocks = 3, block_size = kBlockSize * c.num_kv_heads * c.head_dim;
    const auto k = normal(blocks * block_size, 6);
    const auto cos = angles(blocks, c.dim, std::cos), sin = angles(blocks, c.dim, std::sin);
    std::vector<double> expected;
    for (std::size_t block = 0; block < 3; ++block) {
      const auto half = static_cast<std::size_t>(c.dim / 2), size = static_cast<std::size_t>(block_size);
      const auto key = reference::decode_gate_key(gate.params, std::span(k).subspan(block * size, size),
                                                  std::span(cos).subspan(block * half, half),
                                                  std::span(sin).subspan(block * half, half));
      expected.insert(expected.end(), key.begin(), key.end());
    }
    on_every_context([&](const Context& context) {
      auto out = poisoned(blocks * c.num_kv_heads * c.dim);
      decode_gate_keys(context, gate.params, k.data(), blocks, cos.data(), sin.data(), out.data());
      EXPECT_TRUE(all_close(out, expected, 2e-5, 1e-5));
      auto one = poisoned(std::int64_t{c.num_kv_heads} * c.dim);
      decode_gate_keys(context, gate.params, k.data() + 2 * block_size, 1, cos.data() + c.dim,
                       sin.data() + c.dim, one.data());
      EXPECT_EQ(0,
                std::memcmp(one.data(), out.data() + 2 * c.num_kv_heads * c.dim, one.size() * sizeof(float)))
          << "a block's bits depend on those around it";
    });
  }
}

TEST(DecodeGate, ProbabilitiesMatchTheDefinition) {
  struct Case {
    int heads, dim;
    std::int64_t keys, blocks;
  };
  for (const Case& c :
       {Case{2, 128, 9, 10}, {1, 64, 0, 1}, {3, 16, 64, 65}, {2, 24, 130, 130}, {8, 32, 1100, 1101}}) {
    const auto query = normal(std::int64_t{c.heads} * c.dim, 7), rows = normal(c.keys * c.heads * c.dim, 8);
    const auto expected = reference::decode_gate_probabilities(
        std::vector<double>(query.begin(), query.end()), std::vector<double>(rows.begin(), rows.end()),
        c.heads, c.dim, c.blocks);
    // In two pieces: tiles are filled across calls.
    CompressedKeys keys(c.heads, c.dim);
    keys.append(rows.data(), c.keys / 3);
    keys.append(rows.data() + c.keys / 3 * c.heads * c.dim, c.keys - c.keys / 3);
    ASSERT_EQ(keys.num_blocks(), c.keys);
    on_every_context([&](const Context& context) {
      auto out = poisoned(c.heads * c.blocks);
      decode_gate_probabilities(context, query.data(), keys, c.blocks, out.data());
      EXPECT_TRUE(all_close(out, expected, 1e-6, 1e-5)) << c.keys << " keys";
    });
  }
}

TEST(DecodeGate, RefusesWhatDoesNotFit) {
  RandomGate gate(kGates[0]);
  std::vector<float> out(1024), in(1024);
  gate.params.num_heads = 7;
  EXPECT_THROW(decode_gate_query(Context(1), gate.params, in.data(), in.data(), in.data(), out.data()),
               Error);
  gate.params.num_heads = 8;
  gate.params.dim = 7;
  EXPECT_THROW(decode_gate_query(Context(1), gate.params, in.data(), in.data(), in.data(), out.data()),
               Error);
  CompressedKeys keys(1, 16);
  keys.append(in.data(), 3);
  EXPECT_THROW(decode_gate_probabilities(Context(1), in.data(), keys, 2, out.data()), Error);
}

}  // namespace
}  // namespace seer
