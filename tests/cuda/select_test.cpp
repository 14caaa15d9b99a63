// Masks from probabilities and the baselines' masks: the CPU's, bit for bit.
#include "cuda/select.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/device_array.h"
#include "cuda/gate.h"
#include "ops/gate.h"
#include "ops/select.h"
#include "support/compare.h"

namespace seer::cuda {
namespace {

struct Shape {
  int heads;
  std::int64_t first_row, rows, extra_words;
};

constexpr Shape kShapes[] = {{1, 0, 1, 0},     {3, 0, 63, 0},    {2, 0, 64, 1},
                             {2, 0, 65, 0},    {4, 0, 500, 0},   {2, 460, 53, 0},
                             {1, 2000, 48, 0}, {1, 2010, 90, 3}, {2, 4090, 6, 0}};

class Select : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

/// A mask on the device, poisoned, and a counter that stands at 5.
struct Output {
  explicit Output(const Shape& shape)
      : shape(shape),
        words((shape.first_row + shape.rows + 63) / 64 + shape.extra_words),
        mask(shape.heads * shape.rows * words),
        counter(std::vector<std::uint64_t>{5}) {
    mask.fill_bytes(0xff);
  }
  void expect(const BlockMask& expected, const std::string& what) {
    const auto bits = mask.download();
    std::int64_t different = 0;
    for (int h = 0; h < shape.heads; ++h) {
      for (std::int64_t r = 0; r < shape.rows; ++r) {
        for (std::int64_t w = 0; w < words; ++w) {
          const std::uint64_t word = w < expected.words() ? expected.row(h, r)[w] : 0;
          different += bits[static_cast<std::size_t>((h * shape.rows + r) * words + w)] != word;
        }
      }
    }
    EXPECT_EQ(different, 0) << what << ", " << shape.first_row << " + " << shape.rows << " rows";
    EXPECT_EQ(counter.download()[0], 5 + static_cast<std::uint64_t>(expected.selected_blocks())) << what;
  }
  Shape shape;
  std::int64_t words;
  DeviceArray<std::uint64_t> mask, counter;
};

/// Softmax of normal scores; `levels` > 0: of scores rounded to that many a unit, so that many are equal.
std::vector<float> probabilities(const Shape& s, std::int64_t stride, float levels, bool softmax) {
  std::vector<float> scores(static_cast<std::size_t>(s.heads * s.rows * stride));
  test::fill_normal(scores, 7, 2.0f);
  if (levels > 0)
    for (float& x : scores) x = std::round(x * levels) / levels;
  if (softmax) causal_softmax(Context(), scores.data(), s.heads, s.rows, s.first_row, stride);
  return scores;
}

TEST_F(Select, BlocksAreTheCpus) {
  const SelectRule rules[] = {SelectRule::kThreshold, SelectRule::kTopP, SelectRule::kResidual,
                              SelectRule::kNzRatio};
  for (const Shape& shape : kShapes) {
    const std::int64_t stride = shape.first_row + shape.rows + 3, total = shape.first_row + shape.rows;
    for (const float levels : {0.0f, 4.0f}) {
      for (const SelectRule rule : rules) {
        const auto scores = probabilities(shape, stride, levels, rule != SelectRule::kNzRatio);
        const DeviceArray<float> device_scores(scores);
        for (const double value : {1e-5, 1e-3, 0.02, 0.3, 0.9, 1.0}) {
          const SelectParams select = {rule, value, value == 0.02, total};
          BlockMask expected(shape.heads, shape.first_row, shape.rows);
          seer::select_blocks(Context(), scores.data(), stride, select, expected);
          for (const bool from_device : {false, true}) {
            if (from_device && rule == SelectRule::kNzRatio) continue;
            const DeviceArray<double> device_value(std::vector<double>{value});
            Output out(shape);
            SelectBlocksParams p;
            p.scores = device_scores.data();
            p.stride = stride;
            p.heads = shape.heads;
            p.first_row = shape.first_row;
            p.rows = shape.rows;
            p.select = select;
            if (from_device) {
              p.select.value = 0.5;
              p.value = device_value.data();
            }
            p.mask = out.mask.data();
            p.mask_words = out.words;
            p.selected_blocks = out.counter.data();
            select_blocks(p, nullptr);
            out.expect(expected, "rule " + std::to_string(static_cast<int>(rule)) + ", value " +
                                     std::to_string(value) + ", levels " + std::to_string(levels));
          }
        }
      }
    }
  }
}

TEST_F(Select, BaselinesAreTheCpus) {
  for (const Shape& shape : kShapes) {
    const std::int64_t total = shape.first_row + shape.rows;
    for (const double ratio : {1e-9, 0.1, 0.5, 1.0}) {
      for (const bool last_dense : {false, true}) {
        const SelectParams select = {ratio == 1 ? SelectRule::kDense : SelectRule::kNzRatio, ratio,
                                     last_dense, total};
        BlockMask local(shape.heads, shape.first_row, shape.rows);
        seer::select_sink_local(select, local);
        Output local_out(shape);
        select_sink_local(select, shape.heads, shape.first_row, shape.rows, local_out.mask.data(),
                          local_out.words, local_out.counter.data(), nullptr);
        local_out.expect(local, "local " + std::to_string(ratio));
        BlockMask random(shape.heads, shape.first_row, shape.rows);
        seer::select_random(select, 11, 3, random);
        Output random_out(shape);
        select_random(select, 11, 3, shape.heads, shape.first_row, shape.rows, random_out.mask.data(),
                      random_out.words, random_out.counter.data(), nullptr);
        random_out.expect(random, "random " + std::to_string(ratio));
      }
    }
  }
  EXPECT_THROW(
      select_sink_local({SelectRule::kThreshold, 0.1, false, 1}, 1, 0, 1, nullptr, 1, nullptr, nullptr),
      Error);
}

TEST_F(Select, ThresholdKeepsTheDensity) {
  for (const Shape& shape : kShapes) {
    const std::int64_t stride = shape.first_row + shape.rows;
    const auto scores = probabilities(shape, stride, 0, true);
    const DeviceArray<float> device_scores(scores);
    const std::int64_t causal = shape.heads * causal_blocks_of(shape.first_row, shape.rows);
    for (const double density : {0.05, 0.3, 0.8}) {
      // The bisection of the CPU's oracle.
      double low = std::log(1e-12), high = 0;
      for (int step = 0; step < 40; ++step) {
        const double middle = (low + high) / 2;
        BlockMask mask(shape.heads, shape.first_row, shape.rows);
        seer::select_blocks(Context(), scores.data(), stride, {SelectRule::kThreshold, std::exp(middle)},
                            mask);
        (static_cast<double>(mask.selected_blocks()) > density * static_cast<double>(causal) ? low : high) =
            middle;
      }
      DeviceArray<double> threshold(1);
      DeviceArray<std::uint8_t> workspace(kThresholdWorkspace);
      threshold.fill_bytes(0xff);
      workspace.fill_bytes(0xff);
      threshold_for_density(device_scores.data(), stride, shape.heads, shape.first_row, shape.rows, density,
                            threshold.data(), workspace.data(), nullptr);
      const double found = threshold.download()[0];
      EXPECT_LE(std::abs(found / std::exp(high) - 1), 1e-12) << density << ", " << shape.rows << " rows";
    }
  }
}

TEST_F(Select, RefusesWhatItDoesNotSupport) {
  DeviceArray<float> scores(64);
  DeviceArray<std::uint64_t> mask(64);
  SelectBlocksParams valid;
  valid.scores = scores.data();
  valid.stride = 8;
  valid.heads = 1;
  valid.rows = 8;
  valid.select = {SelectRule::kNzRatio, 0.5, false, 8};
  valid.mask = mask.data();
  valid.mask_words = 1;
  const auto refused = [&](auto change) {
    SelectBlocksParams p = valid;
    change(p);
    EXPECT_THROW(select_blocks(p, nullptr), Error);
  };
  refused([](auto& p) { p.select.rule = SelectRule::kDense; });
  refused([](auto& p) { p.select.total_blocks = 0; });
  refused([](auto& p) { p.stride = 7; });
  refused([](auto& p) { p.mask_words = 0; });
  refused([](auto& p) { p.first_row = p.stride = kMaxSelectBlocks, p.mask_words = 100; });
  refused([](auto& p) { p.value = reinterpret_cast<const double*>(p.scores); });
}

}  // namespace
}  // namespace seer::cuda
