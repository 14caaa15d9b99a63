// What is said when a GPU's memory does not suffice. Nothing here fills it: the demands are absurd.
#include <gtest/gtest.h>

#include <charconv>

#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/device_array.h"
#include "cuda_model/cuda_transformer.h"
#include "cuda_model/memory_plan.h"
#include "support/errors.h"
#include "support/inputs.h"

namespace seer {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

TEST(MemoryPlan, FindsTheLargestThatFits) {
  const MemoryDemand demand{.count = 100, .step = 8, .bytes = [](std::int64_t n) { return 3 * n; }};
  EXPECT_EQ(largest_fitting(demand, 3 * 64), 64);
  EXPECT_EQ(largest_fitting(demand, 3 * 64 - 1), 56);
  EXPECT_EQ(largest_fitting(demand, 10'000), 96);
  EXPECT_EQ(largest_fitting(demand, 0), 0);
}

TEST(MemoryPlan, SaysWhatIsNeededFreeAndPossible) {
  const MemoryDemand demand{.what = "a prompt of",
                            .count = 30,
                            .unit = "tokens",
                            .beside = " (beside 64 of other sequences)",
                            .bytes = [](std::int64_t n) { return n * kGiB / 10; }};
  require_memory(demand, {.free_bytes = 3 * kGiB, .total_bytes = 80 * kGiB});
  EXPECT_EQ(
      test::error_of([&] { require_memory(demand, {.free_bytes = 2 * kGiB, .total_bytes = 80 * kGiB}); }),
      "GPU memory: a prompt of 30 tokens (beside 64 of other sequences) needs 3.00 GiB more, 2.00 of 80.00 "
      "GiB "
      "are free; up to 20 tokens would fit");
}

class CudaMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda::available(&reason)) GTEST_SKIP() << reason;
  }

  static ModelConfig small_model() {
    ModelConfig config;
    config.num_layers = 1;
    config.hidden_size = 8;
    config.intermediate_size = 8;
    config.num_heads = config.num_kv_heads = 1;
    config.head_dim = 128;
    config.vocab_size = 64;
    config.tie_word_embeddings = true;
    config.max_position_embeddings = 4096;
    return config;
  }
  static std::unique_ptr<Transformer> make(const ModelConfig& config, const TransformerOptions& options) {
    return make_random_cuda_transformer(1, config, Context(1), options);
  }
  /// The number after `before` in a message.
  static std::int64_t number_after(const std::string& message, const std::string& before) {
    const std::size_t at = message.find(before);
    if (at == std::string::npos) return -1;
    std::int64_t number = -1;
    std::from_chars(message.data() + at + before.size(), message.data() + message.size(), number);
    return number;
  }
};

TEST_F(CudaMemory, AContextWhoseTablesDoNotFitIsRefused) {
  const std::int64_t context = std::int64_t{1} << 30;
  const std::string error = test::error_of([&] { make(small_model(), {.max_context = context}); });
  EXPECT_TRUE(test::names(
      error, {"--max-context: a context of 1073741824 tokens needs 512.06 GiB more", "are free"}));
  const std::int64_t fits = number_after(error, "up to ");
  EXPECT_GT(fits, 0);
  EXPECT_LE(fits * 512, cuda::device_info().memory_bytes);
}

TEST_F(CudaMemory, APromptThatDoesNotFitIsRefusedAndLeavesNothing) {
  ModelConfig config = small_model();
  config.num_heads = config.num_kv_heads = 4096;  // 2 MiB of keys and values a token
  const auto model = make(config, {.chunk_tokens = kBlockSize, .max_context = 1 << 18});
  const std::vector<std::int32_t> tokens = test::some_tokens(200'000, config.vocab_size);
  Sequence sequence = model->new_sequence();
  const std::int64_t free = device_memory().free_bytes;
  const std::string error = test::error_of([&] { model->prefill(sequence, {.tokens = tokens}); });
  EXPECT_TRUE(
      test::names(error, {"a prompt of 200000 tokens needs ", "GiB more", "are free", "tokens would fit"}));
  const std::int64_t fits = number_after(error, "up to ");
  EXPECT_GT(fits, 0);
  EXPECT_EQ(fits % kBlockSize, 0);
  EXPECT_LE(fits << 21, free);
  EXPECT_GE((fits + 2 * kBlockSize) << 21, free - kGiB);
  EXPECT_EQ(sequence.length(), 0);
  EXPECT_GE(device_memory().free_bytes, free);  // others on this device may have given some back
}

TEST_F(CudaMemory, ABatchThatDoesNotFitIsRefused) {
  ModelConfig config = small_model();
  config.vocab_size = 1 << 22;  // 16 MiB of logits a sequence
  const auto model = make(config, {.max_context = 4096});
  std::vector<Sequence> owned;
  std::vector<Sequence*> sequences;
  for (int i = 0; i < 16384; ++i) owned.push_back(model->new_sequence());
  for (Sequence& sequence : owned) sequences.push_back(&sequence);
  const std::vector<std::int32_t> tokens(owned.size(), 1);
  std::vector<std::int32_t> next(owned.size());
  const std::string error = test::error_of([&] { model->decode_greedy(sequences, tokens, next.data()); });
  EXPECT_TRUE(test::names(error, {"decoding 16384 sequences together needs ", "GiB more", "are free"}));
  const std::int64_t fits = number_after(error, "up to ");
  EXPECT_GT(fits, 0);
  EXPECT_LE(fits << 24, cuda::device_info().memory_bytes);
}

TEST_F(CudaMemory, AnArrayThatDoesNotFitNamesTheBytesAndIsForgotten) {
  EXPECT_TRUE(test::error_names([] { cuda::DeviceArray<float>(std::int64_t{1} << 40); },
                                {"GPU memory: an array of 4398046511104 bytes", "are free"}));
  cuda::check(cudaGetLastError(), "after it");
  cuda::DeviceArray<float> small(4);
  small.fill_bytes(0);
  EXPECT_EQ(small.download(), std::vector<float>(4, 0.0f));
}

}  // namespace
}  // namespace seer
