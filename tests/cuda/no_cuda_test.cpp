#include <gtest/gtest.h>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/gate.h"
#include "cuda/gate_train.h"
#include "cuda/pooled_target.h"
#include "cuda/rope_pool.h"
#include "cuda/select.h"
#include "gate_bench.h"

namespace seer::cuda {
namespace {

TEST(NoCuda, SaysWhatIsMissing) {
  std::string reason;
  EXPECT_FALSE(available(&reason));
  EXPECT_EQ(reason, "built without CUDA");
  EXPECT_THROW(attention_prefill({}, nullptr), Error);
  EXPECT_THROW(attention_decode({}, nullptr), Error);
  EXPECT_THROW(attention_with_target({}, {}, nullptr), Error);
  EXPECT_THROW(GateTraining({}, {}), Error);
  EXPECT_THROW(rope_table(nullptr, 2, 1, 0, 1, 1, nullptr, nullptr, nullptr), Error);
  EXPECT_THROW(rope_pool({}, nullptr), Error);
  EXPECT_THROW(rope_store({}, nullptr), Error);
  EXPECT_THROW(gate_project({}, nullptr), Error);
  EXPECT_THROW(gate_select({}, nullptr), Error);
  EXPECT_THROW(select_blocks({}, nullptr), Error);
  EXPECT_THROW(select_sink_local({}, 1, 0, 1, nullptr, 1, nullptr, nullptr), Error);
  EXPECT_THROW(select_random({}, 0, 0, 1, 0, 1, nullptr, 1, nullptr, nullptr), Error);
  EXPECT_THROW(threshold_for_density(nullptr, 1, 1, 0, 1, 1, nullptr, nullptr, nullptr), Error);
  EXPECT_THROW(bench_attention_prefill({}, {}), Error);
  EXPECT_THROW(bench_attention_decode({}, {}), Error);
  EXPECT_THROW(bench_pooled_target({}, {}), Error);
  EXPECT_THROW(bench_gate({}, {}), Error);
}

}  // namespace
}  // namespace seer::cuda
