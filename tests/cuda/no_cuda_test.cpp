#include <gtest/gtest.h>

#include "core/check.h"
#include "cuda/attention.h"

namespace seer::cuda {
namespace {

TEST(NoCuda, SaysWhatIsMissing) {
  std::string reason;
  EXPECT_FALSE(available(&reason));
  EXPECT_EQ(reason, "built without CUDA");
  EXPECT_THROW(attention_prefill({}, nullptr), Error);
  EXPECT_THROW(attention_decode({}, nullptr), Error);
}

}  // namespace
}  // namespace seer::cuda
