#include "ops/gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "ops/reference/gate.h"
#include "support/inputs.h"

namespace seer {
namespace {

using test::all_close;
using test::normal;
using test::on_every_context;
using test::poisoned;

TEST(BlockPool, MatchesTheDefinition) {
  for (const std::int64_t tokens : {1, 63, 64, 65, 200}) {
    for (const int dim : {16, 72, 128, 5}) {
      for (const unsigned pools : {unsigned{kPoolAvg}, kPoolMax | kPoolMin | kPoolAvg, kPoolMin | kPoolAvg}) {
        const int heads = 3;
        const auto x = normal(tokens * heads * dim, 1);
        const auto expected = reference::block_pool(x, tokens, heads, dim, pools);
        // The same tokens with a gap after each.
        const std::int64_t stride = heads * dim + 7;
        std::vector<float> spread(static_cast<std::size_t>(tokens * stride), 1e9f);
        for (std::int64_t t = 0; t < tokens; ++t)
          std::copy_n(x.data() + t * heads * dim, heads * dim, spread.data() + t * stride);
        on_every_context([&](const Context& context) {
          auto out = poisoned(static_cast<std::int64_t>(expected.size()));
          block_pool(context, spread.data(), tokens, heads, dim, stride, pools, out.data());
          // A mean of 64 values of size 1: 64 additions of relative error 2^-24 each at most.
          EXPECT_TRUE(all_close(out, expected, 1e-5)) << tokens << " tokens, dim " << dim;
        });
      }
    }
  }
}

TEST(BlockPool, RefusesAnEmptySet) {
  const std::vector<float> x(64);
  std::vector<float> out(64);
  EXPECT_THROW(block_pool(Context(1), x.data(), 4, 1, 16, 16, 0, out.data()), Error);
  EXPECT_THROW(block_pool(Context(1), x.data(), 4, 1, 16, 8, kPoolAvg, out.data()), Error);
}

TEST(GateProject, MatchesTheDefinition) {
  struct Case {
    std::int64_t n;
    int x_heads, in_dim, heads, out_dim;
  };
  for (const Case& c : {Case{1, 1, 48, 1, 16}, {3, 2, 384, 8, 128}, {100, 1, 64, 5, 24}, {16, 4, 96, 4, 7}}) {
    const auto x = normal(c.n * c.x_heads * c.in_dim, 2);
    const auto w = normal(std::int64_t{c.heads} * c.in_dim * c.out_dim, 3);
    const auto expected = reference::gate_project(x, c.n, c.x_heads, c.in_dim, w, c.heads, c.out_dim);
    on_every_context([&](const Context& context) {
      auto out = poisoned(static_cast<std::int64_t>(expected.size()));
      gate_project(context, x.data(), c.n, c.x_heads, c.in_dim, w.data(), c.heads, c.out_dim, out.data());
      // Sums of in_dim products of size 1 in float32.
      EXPECT_TRUE(all_close(out, expected, 2e-6 * c.in_dim, 1e-5));
    });
  }
}

TEST(GateProject, ARowDoesNotDependOnItsNeighbours) {
  const auto x = normal(20 * 2 * 96, 4);
  const auto w = normal(4 * 96 * 40, 5);
  on_every_context([&](const Context& context) {
    auto all = poisoned(20 * 4 * 40), one = poisoned(4 * 40);
    gate_project(context, x.data(), 20, 2, 96, w.data(), 4, 40, all.data());
    for (std::int64_t i = 0; i < 20; ++i) {
      gate_project(context, x.data() + i * 2 * 96, 1, 2, 96, w.data(), 4, 40, one.data());
      EXPECT_EQ(0, std::memcmp(one.data(), all.data() + i * 4 * 40, 4 * 40 * sizeof(float))) << "row " << i;
    }
  });
}

struct ScoreCase {
  std::int64_t rows, first_row;
  int heads, k_heads, dim;
  std::int64_t stride;
};
const ScoreCase kScoreCases[] = {{1, 0, 1, 1, 16, 1},     {16, 0, 8, 8, 128, 16}, {7, 60, 6, 2, 64, 70},
                                 {3, 200, 4, 1, 32, 203}, {70, 3, 2, 2, 40, 90},  {2, 63, 5, 1, 128, 65}};

/// Compares scores [heads, rows, stride] with the reference's [heads, rows, first_row + rows].
void expect_rows(const std::vector<float>& actual, std::span<const double> expected, const ScoreCase& c,
                 double absolute, float after) {
  const std::int64_t n = c.first_row + c.rows;
  for (std::int64_t row = 0; row < c.heads * c.rows; ++row) {
    const float* values = actual.data() + row * c.stride;
    EXPECT_TRUE(all_close({values, static_cast<std::size_t>(n)},
                          expected.subspan(static_cast<std::size_t>(row * n), static_cast<std::size_t>(n)),
                          absolute));
    for (std::int64_t j = n; j < c.stride; ++j) EXPECT_EQ(values[j], after) << "column " << j;
  }
}

TEST(GateScores, MatchTheDefinition) {
  for (const ScoreCase& c : kScoreCases) {
    const std::int64_t n = c.first_row + c.rows;
    const auto q = normal(c.rows * c.heads * c.dim, 6), k = normal(n * c.k_heads * c.dim, 7);
    const auto expected = reference::gate_scores(q, c.rows, c.first_row, c.heads, k, c.k_heads, c.dim);
    on_every_context([&](const Context& context) {
      auto out = poisoned(c.heads * c.rows * c.stride);
      gate_scores(context, q.data(), c.rows, c.first_row, c.heads, k.data(), c.k_heads, c.dim, out.data(),
                  c.stride);
      expect_rows(out, expected, c, 1e-5, -INFINITY);
    });
  }
}

TEST(GateScores, ChunksGiveTheBitsOfOneShot) {
  const std::int64_t n = 150;
  const int heads = 3, dim = 64;
  const auto q = normal(n * heads * dim, 8), k = normal(n * heads * dim, 9);
  on_every_context([&](const Context& context) {
    auto all = poisoned(heads * n * n);
    gate_scores(context, q.data(), n, 0, heads, k.data(), heads, dim, all.data(), n);
    for (std::int64_t first = 0; first < n; first += 16) {
      const std::int64_t rows = std::min<std::int64_t>(16, n - first), stride = first + rows;
      auto chunk = poisoned(heads * rows * stride);
      gate_scores(context, q.data() + first * heads * dim, rows, first, heads, k.data(), heads, dim,
                  chunk.data(), stride);
      for (int h = 0; h < heads; ++h)
        for (std::int64_t r = 0; r < rows; ++r)
          ASSERT_EQ(0,
                    std::memcmp(chunk.data() + (h * rows + r) * stride, all.data() + (h * n + first + r) * n,
                                static_cast<std::size_t>(stride) * sizeof(float)));
    }
  });
}

TEST(CausalSoftmax, MatchesTheDefinition) {
  for (const ScoreCase& c : kScoreCases) {
    const std::int64_t n = c.first_row + c.rows;
    const auto scores = normal(c.heads * c.rows * n, 10, 5.0f);
    const auto expected = reference::causal_softmax(scores, c.heads, c.rows, c.first_row);
    on_every_context([&](const Context& context) {
      auto out = poisoned(c.heads * c.rows * c.stride);
      for (std::int64_t row = 0; row < c.heads * c.rows; ++row)
        std::copy_n(scores.data() + row * n, c.first_row + row % c.rows + 1, out.data() + row * c.stride);
      causal_softmax(context, out.data(), c.heads, c.rows, c.first_row, c.stride);
      expect_rows(out, expected, c, 1e-6, 0.0f);
    });
  }
}

TEST(CausalSoftmax, HoldsForHugeScores) {
  std::vector<float> scores{3e38f, 2e38f, -3e38f, 0.0f};
  causal_softmax(Context(1), scores.data(), 1, 1, 2, 4);
  EXPECT_EQ(scores, (std::vector<float>{1, 0, 0, 0}));
}

std::vector<float> random_targets(int heads, std::int64_t n, unsigned seed) {
  auto target = normal(heads * n * n, seed, 3.0f);
  causal_softmax(Context(1), target.data(), heads, n, 0, n);
  for (std::int64_t i = 0; i < heads * n * n; i += 5)
    target[static_cast<std::size_t>(i)] = 0;  // log 0 is not taken
  return target;
}

TEST(GateKlLoss, MatchesTheDefinition) {
  for (const std::int64_t n : {1, 5, 33}) {
    for (const std::int64_t skip : {std::int64_t{0}, n / 4}) {
      const int heads = 3;
      auto scores = normal(heads * n * n, 11, 4.0f);
      const auto target = random_targets(heads, n, 12);
      const auto expected = reference::gate_kl_loss(scores, target, heads, n, skip, 0.125);
      on_every_context([&](const Context& context) {
        auto gradient = poisoned(heads * n * n);
        const double loss =
            gate_kl_loss(context, scores.data(), target.data(), heads, n, n, skip, 0.125, gradient.data());
        EXPECT_NEAR(loss, expected.loss, 1e-5 * (1 + std::abs(expected.loss)));
        EXPECT_TRUE(all_close(gradient, expected.d_scores, 1e-6));
        auto in_place = scores;
        gate_kl_loss(context, in_place.data(), target.data(), heads, n, n, skip, 0.125, in_place.data());
        EXPECT_EQ(in_place, gradient);
        EXPECT_EQ(gate_kl_loss(context, scores.data(), target.data(), heads, n, n, skip, 0.125, nullptr),
                  loss);
      });
    }
  }
}

TEST(GateKlLoss, GradientIsTheLossesSlope) {
  const int heads = 2;
  const std::int64_t n = 9;
  const auto scores = normal(heads * n * n, 13, 2.0f), target = random_targets(heads, n, 14);
  const auto analytic = reference::gate_kl_loss(scores, target, heads, n, 2, 0.5).d_scores;
  const float step = 1.0f / 128;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    auto up = scores, down = scores;
    up[i] += step, down[i] -= step;
    const double slope = (reference::gate_kl_loss(up, target, heads, n, 2, 0.5).loss -
                          reference::gate_kl_loss(down, target, heads, n, 2, 0.5).loss) /
                         (static_cast<double>(up[i]) - down[i]);
    EXPECT_NEAR(slope, analytic[i], 1e-5) << "score " << i;
  }
}

}  // namespace
}  // namespace seer
