#include <gtest/gtest.h>

#include "attention_bench.h"
#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/pooled_target.h"

namespace seer::cuda {
namespace {

TEST(NoCuda, SaysWhatIsMissing) {
  std::string reason;
  EXPECT_FALSE(available(&reason));
  EXPECT_EQ(reason, "built without CUDA");
  EXPECT_THROW(attention_prefill({}, nullptr), Error);
  EXPECT_THROW(attention_decode({}, nullptr), Error);
  EXPECT_THROW(pooled_target({}, nullptr), Error);
  EXPECT_THROW(bench_attention_prefill({}, {}), Error);
  EXPECT_THROW(bench_attention_decode({}, {}), Error);
  EXPECT_THROW(bench_pooled_target({}, {}), Error);
}

}  // namespace
}  // namespace seer::cuda
