// The decode gate's kernels against float64.
#include "cuda/decode_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/device_array.h"
#include "ops/block_mask.h"
#include "ops/reference/decode_gate.h"
#include "support.h"
#include "support/inputs.h"

namespace seer::cuda {
namespace {

using test::normal;

struct Case {
  std::string name;
  std::vector<std::int32_t> lengths;  // tokens of each sequence, the last one being taken in
  int num_heads = 8, num_kv_heads = 2, head_dim = 128, dim = 128;
  bool gate_norms = true, model_norms = false;
  DType dtype = DType::kBF16;
  unsigned k_pools = kPoolMax | kPoolMin | kPoolAvg;
  std::int64_t extra_words = 0;
  bool rotate_at_last = false;
};

void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const std::int32_t length : {1, 63, 64, 65, 128, 4097, 8192, 131071, 131072})
    list.push_back({.name = "tokens_" + std::to_string(length), .lengths = {length}});
  list.push_back({.name = "tokens_262144", .lengths = {262144}, .num_heads = 2, .num_kv_heads = 1});
  for (const int group : {1, 4, 7, 16})
    for (const int dim : {64, 128})
      list.push_back({.name = "group_" + std::to_string(group) + "_d" + std::to_string(dim),
                      .lengths = {700, 3008, 1},
                      .num_heads = 3 * group,
                      .num_kv_heads = 3,
                      .head_dim = dim,
                      .dim = dim,
                      .gate_norms = group % 2 == 0,
                      .model_norms = group > 4});
  list.push_back({.name = "dim_16", .lengths = {640, 1000}, .head_dim = 64, .dim = 16});
  list.push_back({.name = "dim_96", .lengths = {640, 1000}, .dim = 96, .k_pools = kPoolAvg});
  list.push_back({.name = "dim_256", .lengths = {9000, 1024}, .head_dim = 64, .dim = 256});
  list.push_back({.name = "dim_240_long", .lengths = {150016}, .num_kv_heads = 1, .dim = 240});
  list.push_back({.name = "fp16", .lengths = {2000, 2048}, .model_norms = true, .dtype = DType::kF16});
  list.push_back({.name = "two_pools", .lengths = {128}, .k_pools = kPoolMax | kPoolAvg, .extra_words = 2});
  list.push_back({.name = "rotate_at_last", .lengths = {192}, .rotate_at_last = true});
  list.push_back({.name = "many_sequences", .lengths = std::vector<std::int32_t>(70, 1500)});
  return list;
}

std::vector<float> rounded(const std::vector<float>& values, DType dtype) {
  return from_storage(to_storage(values, dtype), dtype);
}

constexpr int kLayers = 2, kLayer = 1;
constexpr float kModelEps = 1e-5f;

/// A gate and the state of a batch, in host and device memory.
struct Problem {
  explicit Problem(const Case& problem)
      : c(problem),
        batch(static_cast<int>(c.lengths.size())),
        longest(*std::max_element(c.lengths.begin(), c.lengths.end())),
        capacity(blocks_for(longest) + 3),
        words((blocks_for(longest) + 63) / 64 + c.extra_words),
        q_weight(rounded(normal(std::int64_t{c.num_heads} * c.head_dim * c.dim, 1, 0.1f), DType::kBF16)),
        k_weight(rounded(
            normal(std::int64_t{c.num_kv_heads} * pool_count(c.k_pools) * c.head_dim * c.dim, 2, 0.1f),
            DType::kBF16)),
        q_norm(normal(c.dim, 3)),
        k_norm(normal(c.dim, 4)),
        model_q_norm(normal(c.head_dim, 5)),
        model_k_norm(normal(c.head_dim, 6)),
        qkv(rounded(normal(batch * token_size(), 7), c.dtype)),
        keys(rounded(normal(batch * sequence_keys(), 8), DType::kBF16)),
        open(rounded(normal(batch * sequence_open(), 9), c.dtype)),
        device_q_weight(to_storage(q_weight, DType::kBF16)),
        device_k_weight(to_storage(k_weight, DType::kBF16)),
        device_q_norm(q_norm),
        device_k_norm(k_norm),
        device_model_q_norm(model_q_norm),
        device_model_k_norm(model_k_norm),
        device_qkv(to_storage(qkv, c.dtype)),
        device_keys(to_storage(keys, DType::kBF16)),
        device_open(to_storage(open, c.dtype)),
        selected(std::vector<std::uint64_t>(static_cast<std::size_t>(batch), 5)),
        positions(batch),
        mask(batch * c.num_kv_heads * words),
        sequences(batch) {
    for (std::int64_t i = 0; i < longest * (c.dim / 2); ++i) {
      const double angle = 0.7 * static_cast<double>(i % 9973);
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
    device_cos = DeviceArray<float>(cos);
    device_sin = DeviceArray<float>(sin);
    std::vector<std::int32_t> last;
    std::vector<DecodeGateSequence> states;
    for (int b = 0; b < batch; ++b) {
      last.push_back(c.lengths[static_cast<std::size_t>(b)] - 1);
      states.push_back({.keys = device_keys.data() + b * sequence_keys(),
                        .open = device_open.data() + b * sequence_open(),
                        .selected_blocks = selected.data() + b,
                        .capacity = capacity});
    }
    positions.upload(last);
    sequences.upload(states);
    mask.fill_bytes(0xff);
  }

  std::int64_t token_size() const { return std::int64_t{c.num_heads + 2 * c.num_kv_heads} * c.head_dim + 8; }
  std::int64_t sequence_keys() const { return std::int64_t{kLayers} * c.num_kv_heads * capacity * c.dim; }
  std::int64_t sequence_open() const {
    return std::int64_t{kLayers} * kBlockSize * c.num_kv_heads * c.head_dim;
  }
  std::int64_t key_at(int b, int head, std::int64_t block) const {
    return b * sequence_keys() + ((std::int64_t{kLayer} * c.num_kv_heads + head) * capacity + block) * c.dim;
  }

  DecodeGateLayerParams gate() const {
    return {.dtype = c.dtype,
            .num_heads = c.num_heads,
            .num_kv_heads = c.num_kv_heads,
            .head_dim = c.head_dim,
            .model_q_norm = c.model_norms ? device_model_q_norm.data() : nullptr,
            .model_k_norm = c.model_norms ? device_model_k_norm.data() : nullptr,
            .model_norm_eps = kModelEps,
            .dim = c.dim,
            .k_pools = c.k_pools,
            .q_weight = device_q_weight.data(),
            .k_weight = device_k_weight.data(),
            .q_norm = c.gate_norms ? device_q_norm.data() : nullptr,
            .k_norm = c.gate_norms ? device_k_norm.data() : nullptr,
            .cos = device_cos.data(),
            .sin = device_sin.data()};
  }

  DecodeGateTokenParams params() {
    return {.gate = gate(),
            .layer = kLayer,
            .batch = batch,
            .sequences = sequences.data(),
            .qkv = device_qkv.data(),
            .qkv_stride = token_size(),
            .positions = positions.data(),
            .rotate_at_last = c.rotate_at_last,
            .mask = mask.data(),
            .mask_words = words};
  }

  /// For the reference, whose inputs have passed the model's norm.
  seer::DecodeGateParams reference() const {
    return {.num_heads = c.num_heads,
            .num_kv_heads = c.num_kv_heads,
            .head_dim = c.head_dim,
            .dim = c.dim,
            .k_pools = c.k_pools,
            .q_weight = q_weight.data(),
            .k_weight = k_weight.data(),
            .q_norm = c.gate_norms ? q_norm.data() : nullptr,
            .k_norm = c.gate_norms ? k_norm.data() : nullptr};
  }
  std::vector<float> model_normed(std::vector<float> heads, const std::vector<float>& weight) const {
    if (!c.model_norms) return heads;
    for (std::size_t i = 0; i < heads.size(); i += weight.size()) {
      double squares = 0;
      for (std::size_t d = 0; d < weight.size(); ++d) squares += std::pow(heads[i + d], 2.0);
      const double scale = 1 / std::sqrt(squares / c.head_dim + static_cast<double>(kModelEps));
      for (std::size_t d = 0; d < weight.size(); ++d)
        heads[i + d] = static_cast<float>(heads[i + d] * scale * weight[d]);
    }
    return heads;
  }
  std::span<const float> angles(const std::vector<float>& table, std::int64_t position) const {
    const auto half = static_cast<std::size_t>(c.dim / 2);
    return std::span(table).subspan(static_cast<std::size_t>(position) * half, half);
  }
  /// Key heads of sequence b's token as projected.
  std::vector<float> token_keys(int b) const {
    const auto begin = qkv.begin() + b * token_size() + std::int64_t{c.num_heads} * c.head_dim;
    return {begin, begin + std::int64_t{c.num_kv_heads} * c.head_dim};
  }
  std::vector<float> query(int b) const {
    const auto begin = qkv.begin() + b * token_size();
    const std::int64_t position = c.lengths[static_cast<std::size_t>(b)] - 1;
    const std::vector<double> exact = seer::reference::decode_gate_query(
        reference(), model_normed({begin, begin + std::int64_t{c.num_heads} * c.head_dim}, model_q_norm),
        angles(cos, position), angles(sin, position));
    return {exact.begin(), exact.end()};
  }

  Case c;
  int batch;
  std::int64_t longest, capacity, words;
  std::vector<float> q_weight, k_weight, q_norm, k_norm, model_q_norm, model_k_norm, qkv, keys, open, cos,
      sin;
  DeviceArray<std::uint16_t> device_q_weight, device_k_weight;
  DeviceArray<float> device_q_norm, device_k_norm, device_model_q_norm, device_model_k_norm, device_cos,
      device_sin;
  DeviceArray<std::uint16_t> device_qkv, device_keys, device_open;
  DeviceArray<std::uint64_t> selected;
  DeviceArray<std::int32_t> positions;
  DeviceArray<std::uint64_t> mask;
  DeviceArray<DecodeGateSequence> sequences;
};

class DecodeGateCase : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

TEST_P(DecodeGateCase, TakesTheTokensKeyIn) {
  Problem problem(GetParam());
  const Case& c = problem.c;
  DecodeGateTokenParams p = problem.params();
  p.mask = nullptr;
  decode_gate(p, nullptr);
  const auto open = from_storage(problem.device_open.download(), c.dtype);
  const auto keys = from_storage(problem.device_keys.download(), DType::kBF16);
  std::vector<float> expected_open = problem.open, expected_keys = problem.keys;
  std::vector<float> actual;
  std::vector<double> exact;
  const std::int64_t row = std::int64_t{c.num_kv_heads} * c.head_dim;
  for (int b = 0; b < problem.batch; ++b) {
    const std::int64_t position = c.lengths[static_cast<std::size_t>(b)] - 1, slot = position % kBlockSize;
    const auto block =
        expected_open.begin() + b * problem.sequence_open() + std::int64_t{kLayer} * kBlockSize * row;
    const std::vector<float> token = problem.token_keys(b);
    std::copy(token.begin(), token.end(), block + slot * row);
    if (slot != kBlockSize - 1) continue;
    const std::int64_t rotated_at = c.rotate_at_last ? position : position - slot;
    const std::vector<double> key = seer::reference::decode_gate_key(
        problem.reference(), problem.model_normed({block, block + kBlockSize * row}, problem.model_k_norm),
        problem.angles(problem.cos, rotated_at), problem.angles(problem.sin, rotated_at));
    exact.insert(exact.end(), key.begin(), key.end());
    for (int head = 0; head < c.num_kv_heads; ++head) {
      const std::int64_t at = problem.key_at(b, head, position / kBlockSize);
      actual.insert(actual.end(), keys.begin() + at, keys.begin() + at + c.dim);
      std::copy_n(keys.begin() + at, c.dim, expected_keys.begin() + at);
    }
  }
  EXPECT_EQ(open, expected_open);
  EXPECT_EQ(keys, expected_keys);  // nothing but the new keys changed
  // Sums of up to 384 products in float32, and the rounding of the result.
  EXPECT_TRUE(test::all_close(actual, std::span<const double>(exact), 1e-4, 0x1p-8 * 1.01));
}

/// What one list keeps in float64, and the scores at its cut.
struct Choice {
  std::vector<bool> kept;
  double least_kept = INFINITY, most_dropped = -INFINITY;
};

Choice choose(const std::vector<double>& scores, std::int64_t budget, double threshold) {
  const std::size_t blocks = scores.size();
  Choice choice{.kept = std::vector<bool>(blocks, false)};
  std::vector<std::size_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a > b;
  });
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - scores[order[0]]);
  for (std::size_t i = 0; i < blocks; ++i) {
    const double score = scores[order[i]];
    const bool keep = budget > 0 ? i < static_cast<std::size_t>(budget)
                                 : std::exp(score - scores[order[0]]) / sum > threshold;
    choice.kept[order[i]] = keep;
    if (keep)
      choice.least_kept = std::min(choice.least_kept, score);
    else
      choice.most_dropped = std::max(choice.most_dropped, score);
  }
  choice.kept[blocks - 1] = true;
  return choice;
}

TEST_P(DecodeGateCase, KeepsTheBlocksOfFloat64) {
  Problem problem(GetParam());
  const Case& c = problem.c;
  const double mean = 1 / static_cast<double>(blocks_for(problem.longest));
  struct Rule {
    std::int64_t budget;
    double threshold;
  };
  std::uint64_t counted = 5;
  for (const Rule rule : {Rule{64, 0}, Rule{64 * 9 + 63, 0}, Rule{problem.longest / 10 + 64, 0},
                          Rule{problem.longest + 64, 0}, Rule{0, mean}, Rule{0, 4 * mean}, Rule{0, 1}}) {
    SCOPED_TRACE("budget " + std::to_string(rule.budget) + ", threshold " + std::to_string(rule.threshold));
    DecodeGateTokenParams p = problem.params();
    p.token_budget = rule.budget;
    p.threshold = rule.threshold;
    problem.mask.fill_bytes(0xff);
    decode_gate(p, nullptr);
    const auto bits = problem.mask.download();
    decode_gate(p, nullptr);
    EXPECT_EQ(problem.mask.download(), bits);
    const auto keys = from_storage(problem.device_keys.download(), DType::kBF16);
    std::int64_t kept_of_first = 0, different = 0, kept = 0;
    for (int b = 0; b < problem.batch; ++b) {
      const std::int64_t length = c.lengths[static_cast<std::size_t>(b)], blocks = blocks_for(length);
      const std::vector<float> query = problem.query(b);
      for (int head = 0; head < c.num_kv_heads; ++head) {
        std::vector<double> scores(static_cast<std::size_t>(blocks), 0.0);
        for (std::int64_t j = 0; j < length / kBlockSize; ++j) {
          double& score = scores[static_cast<std::size_t>(j)];
          for (int d = 0; d < c.dim; ++d)
            score += static_cast<double>(query[static_cast<std::size_t>(head * c.dim + d)]) *
                     static_cast<double>(keys[static_cast<std::size_t>(problem.key_at(b, head, j) + d)]);
          score /= std::sqrt(static_cast<double>(c.dim));
        }
        const bool all = rule.budget / kBlockSize >= blocks;
        const Choice expected = choose(scores, all ? blocks : rule.budget / kBlockSize, rule.threshold);
        const std::uint64_t* row = bits.data() + (b * c.num_kv_heads + head) * problem.words;
        std::int64_t in_row = 0;
        for (std::int64_t j = 0; j < problem.words * 64; ++j) {
          const bool has = (row[j / 64] >> (j % 64) & 1) != 0;
          in_row += has;
          if (j >= blocks) {
            ASSERT_FALSE(has) << "sequence " << b << ", head " << head << ", block " << j;
            continue;
          }
          const auto at = static_cast<std::size_t>(j);
          if (has == expected.kept[at]) continue;
          ++different;
          // On the other side of the cut, which float32 sums may place differently.
          const double distance = has ? expected.most_dropped - scores[at] : scores[at] - expected.least_kept;
          EXPECT_LE(distance, 2e-4 * std::max(1.0, std::abs(scores[at])))
              << "sequence " << b << ", head " << head << ", block " << j;
        }
        EXPECT_TRUE((row[(blocks - 1) / 64] >> ((blocks - 1) % 64) & 1) != 0);
        if (rule.budget > 0) {
          EXPECT_GE(in_row, std::min(blocks, rule.budget / kBlockSize));
          EXPECT_LE(in_row, std::min(blocks, rule.budget / kBlockSize + 1));
        }
        kept += in_row;
        if (b == 0) kept_of_first += in_row;
      }
    }
    EXPECT_LE(different, 2 + kept / 500);
    counted += 2 * static_cast<std::uint64_t>(kept_of_first);  // of both runs
    EXPECT_EQ(problem.selected.download()[0], counted);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, DecodeGateCase, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

class DecodeGate : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    if (!available(&reason)) GTEST_SKIP() << reason;
  }
};

TEST_F(DecodeGate, EqualScoresKeepTheLaterBlocks) {
  Problem problem({.name = "", .lengths = {64 * 700 + 1}});
  problem.device_keys.fill_bytes(0);
  DecodeGateTokenParams p = problem.params();
  p.token_budget = 64 * 300;
  decode_gate(p, nullptr);
  const auto bits = problem.mask.download();
  for (std::int64_t j = 0; j < problem.words * 64; ++j)
    EXPECT_EQ(bits[static_cast<std::size_t>(j / 64)] >> (j % 64) & 1, j >= 401 && j <= 700 ? 1u : 0u) << j;
}

TEST_F(DecodeGate, ASequencesBlocksDoNotDependOnItsBatch) {
  Case c{.name = "", .lengths = {}};
  for (std::int32_t i = 0; i < 140; ++i) c.lengths.push_back(64 * 40 + 37 * i % 640);
  Problem problem(c);
  DecodeGateTokenParams p = problem.params();
  p.token_budget = 64 * 11;
  decode_gate(p, nullptr);
  const std::vector<std::uint64_t> all = problem.mask.download();
  for (const int batch : {1, 3, 12, 24, 50, 100}) {  // a list of blocks is shared by 8 CTAs down to 1
    problem.mask.fill_bytes(0xff);
    p.batch = batch;
    decode_gate(p, nullptr);
    std::vector<std::uint64_t> some = problem.mask.download();
    some.resize(static_cast<std::size_t>(batch * c.num_kv_heads * problem.words));
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << "batch " << batch;
  }
}

TEST_F(DecodeGate, APromptsKeysHaveTheBitsOfDecodedOnes) {
  for (const bool norms : {false, true}) {
    constexpr std::int64_t kBlocks = 3;
    const Case c{.name = "", .lengths = {64 * kBlocks}, .gate_norms = norms, .model_norms = norms};
    Problem prompt(c), decoded(c);
    const std::int64_t size = prompt.token_size();
    const DeviceArray<std::uint16_t> tokens(to_storage(normal(64 * kBlocks * size, 11), c.dtype));
    for (std::int64_t first = 0; first < kBlocks; first += 2) {  // in two chunks
      decode_gate_keys({.gate = prompt.gate(),
                        .k = tokens.data() + 64 * first * size + c.num_heads * c.head_dim,
                        .token_stride = size,
                        .first_block = first,
                        .num_blocks = std::min<std::int64_t>(2, kBlocks - first),
                        .keys = prompt.device_keys.data() + prompt.key_at(0, 0, 0),
                        .capacity = prompt.capacity},
                       nullptr);
    }
    DecodeGateTokenParams p = decoded.params();
    p.mask = nullptr;
    for (std::int32_t position = 0; position < 64 * kBlocks; ++position) {
      decoded.positions.upload(std::vector<std::int32_t>{position});
      p.qkv = tokens.data() + position * size;
      decode_gate(p, nullptr);
    }
    EXPECT_EQ(prompt.device_keys.download(), decoded.device_keys.download());
    EXPECT_NE(prompt.device_keys.download(), to_storage(prompt.keys, DType::kBF16));
  }
}

TEST_F(DecodeGate, AGraphStaysRightOverBlockBoundaries) {
  const Case c{.name = "", .lengths = {64 * 12, 64 * 9}};
  Problem replayed(c), called(c);
  const auto prepare = [&](Problem& problem, std::int32_t step) {
    problem.positions.upload(std::vector<std::int32_t>{64 * 10 + 60 + step, 64 * 7 + 20 + step});
    problem.device_qkv.upload(to_storage(normal(problem.qkv.size(), 20 + step), c.dtype));
  };
  const auto run = [](Problem& problem, cudaStream_t stream) {
    DecodeGateTokenParams p = problem.params();
    p.token_budget = 64 * 4;
    decode_gate(p, stream);
  };
  cudaStream_t stream{};
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "graph");
  run(replayed, stream);
  check(cudaStreamEndCapture(stream, &graph), "graph");
  check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  for (std::int32_t step = 0; step < 50; ++step) {
    prepare(replayed, step);
    prepare(called, step);
    check(cudaDeviceSynchronize(), "inputs");
    check(cudaGraphLaunch(executable, stream), "graph");
    check(cudaStreamSynchronize(stream), "graph");
    run(called, nullptr);
    ASSERT_EQ(replayed.mask.download(), called.mask.download()) << "step " << step;
  }
  EXPECT_EQ(replayed.device_keys.download(), called.device_keys.download());
  EXPECT_NE(replayed.device_keys.download(), to_storage(replayed.keys, DType::kBF16));
  check(cudaGraphExecDestroy(executable), "graph");
  check(cudaGraphDestroy(graph), "graph");
  check(cudaStreamDestroy(stream), "stream");
}

TEST_F(DecodeGate, RefusesWhatItDoesNotSupport) {
  Problem problem({.name = "", .lengths = {100}});
  const auto refused = [&](auto change) {
    DecodeGateTokenParams p = problem.params();
    p.token_budget = 64;
    change(p);
    EXPECT_THROW(decode_gate(p, nullptr), Error);
  };
  refused([](auto& p) { p.gate.dim = 24; });
  refused([](auto& p) { p.gate.dim = 272; });
  refused([](auto& p) { p.gate.head_dim = 96; });
  refused([](auto& p) { p.gate.num_heads = 3; });
  refused([](auto& p) { p.gate.k_pools = 0; });
  refused([](auto& p) { p.gate.q_weight = nullptr; });
  refused([](auto& p) { p.gate.cos = nullptr; });
  refused([](auto& p) { p.token_budget = 63; });
  refused([](auto& p) { p.mask_words = 65; });
  refused([](auto& p) { p.gate.num_heads = 17 * p.gate.num_kv_heads; });
  DecodeGateKeysParams keys{.gate = problem.gate(),
                            .k = problem.device_qkv.data(),
                            .num_blocks = 9,
                            .keys = problem.device_keys.data(),
                            .capacity = 8};
  EXPECT_THROW(decode_gate_keys(keys, nullptr), Error);
}

}  // namespace
}  // namespace seer::cuda
