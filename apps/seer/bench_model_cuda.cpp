// seer bench model --device cuda.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "attention_bench.h"
#include "bench_model.h"
#include "core/check.h"
#include "cuda_model/cuda_transformer.h"
#include "model/shapes.h"

using namespace seer;

namespace {

using Clock = std::chrono::steady_clock;

/// Long cases are repeated less: no more runs once a case has taken this long.
constexpr double kEnoughSeconds = 6;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A model to measure and what chooses blocks at a density.
struct Subject {
  std::string name;
  std::unique_ptr<Transformer> transformer;
  std::unique_ptr<Gate> random_gate;  // of a shape
};

/// A gate with weights of the usual size: which blocks it chooses means nothing, what it costs does.
std::unique_ptr<Gate> make_random_gate(const ModelConfig& config) {
  auto gate = std::make_unique<Gate>();
  gate->config.gate_hidden_size = config.head_dim;
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
  const std::int64_t matrix =
      std::int64_t{pool_count(gate->config.k_pools)} * config.head_dim * config.head_dim;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    GateLayer& weights = gate->layers.emplace_back();
    weights.k_weight = Buffer<float>(config.num_heads * matrix);
    for (float& weight : weights.k_weight) weight = uniform(random);
  }
  return gate;
}

Subject load_subject(const BenchModelFlags& flags) {
  Subject subject;
  if (flags.shape.empty()) {
    LoadedModel model = load_model(flags.model);
    subject.name = model.folder;
    subject.transformer = std::move(model.transformer);
    return subject;
  }
  SEER_CHECK(flags.model.model.empty(), "--shape: expected no MODEL beside it, found {}", flags.model.model);
  const ModelConfig config = named_shape(flags.shape);
  subject.name = flags.shape;
  subject.transformer = make_random_cuda_transformer(1, config, Context(flags.model.threads),
                                                     transformer_options(flags.model, config.torch_dtype));
  subject.random_gate = make_random_gate(config);
  return subject;
}

/// nullptr: dense. A shape's random gate has no calibration: it keeps top-k of every row.
std::unique_ptr<Selector> make_bench_selector(const BenchModelFlags& flags, const Subject& subject,
                                              const Gate* gate, double density) {
  if (density >= 1) return nullptr;
  const SparsityOptions sparsity{.rule = subject.random_gate != nullptr ? SparsityOptions::Rule::kNzRatio
                                                                        : SparsityOptions::Rule::kAdaptive,
                                 .value = density};
  return make_selector(parse_selector_kind(flags.selector), sparsity, subject.transformer->config(), gate, 1);
}

nlohmann::ordered_json bench_prefill(const BenchModelFlags& flags, const Subject& subject, const Gate* gate,
                                     std::int64_t length, double density) {
  Transformer& model = *subject.transformer;
  const std::unique_ptr<Selector> selector = make_bench_selector(flags, subject, gate, density);
  const std::vector<std::int32_t> ids = bench_ids(length, model.config().vocab_size);
  std::vector<PrefillStats> runs;
  const auto start = Clock::now();
  for (int run = 0; run <= flags.repeats; ++run) {
    Sequence sequence = model.new_sequence();
    const PrefillStats stats = model.prefill(sequence, {.tokens = ids, .selector = selector.get()}).stats;
    const bool enough = seconds_since(start) > kEnoughSeconds;
    if (run > 0 || enough) runs.push_back(stats);  // the first warms up
    if (enough) break;
  }
  std::sort(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  const PrefillStats& median = runs[runs.size() / 2];
  const PrefillStats::Stages& stages = median.stages;
  const double select = median.select_seconds - stages.gate;
  const auto share = [&](double seconds) { return 100 * seconds / median.seconds; };
  fmt::print(
      "{:>8} {:>8.3f} {:>10.4f} {:>10.0f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f}\n",
      length, median.density(), median.seconds, static_cast<double>(length) / median.seconds,
      share(stages.projection), share(stages.rope_pool), share(stages.gate), share(select),
      share(median.attention_seconds), share(stages.mlp), share(stages.other));
  std::fflush(stdout);
  return {{"tokens", length},
          {"selector", selector == nullptr ? "dense" : flags.selector},
          {"density_asked", density},
          {"density", median.density()},
          {"seconds", median.seconds},
          {"spread", runs.back().seconds - runs.front().seconds},
          {"runs", runs.size()},
          {"stages",
           {{"projection", stages.projection},
            {"rope_pool", stages.rope_pool},
            {"gate", stages.gate},
            {"select", select},
            {"attention", median.attention_seconds},
            {"mlp", stages.mlp},
            {"other", stages.other}}}};
}

nlohmann::ordered_json bench_decode(const BenchModelFlags& flags, const Subject& subject,
                                    std::int64_t context, double copy_rate) {
  Transformer& model = *subject.transformer;
  const ModelConfig& config = model.config();
  Sequence sequence = model.new_sequence();
  model.prefill(sequence, {.tokens = bench_ids(context, config.vocab_size), .want_last_logits = false});
  Sequence* const sequences[] = {&sequence};
  std::int32_t token = 1;
  std::vector<double> seconds;
  for (int run = 0; run <= flags.repeats; ++run) {
    sequence.truncate(context);
    const auto start = Clock::now();
    for (int i = 0; i < flags.decode_tokens; ++i) model.decode_greedy(sequences, {&token, 1}, &token);
    if (run > 0) seconds.push_back(seconds_since(start) / flags.decode_tokens);
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double tokens = static_cast<double>(context) + 0.5 * flags.decode_tokens;
  const double bytes =
      static_cast<double>(model.matrix_bytes()) + tokens * 2.0 * 2.0 * config.kv_size() * config.num_layers;
  fmt::print("decode   context {:>7}: {:.3f} ms, {:.1f} tokens/s, {:.0f} GB/s, {:.1f} % of a copy's {:.0f}\n",
             context, median * 1e3, 1 / median, bytes / median * 1e-9, 100 * bytes / median / copy_rate,
             copy_rate * 1e-9);
  std::fflush(stdout);
  return {{"context", context},
          {"batch", 1},
          {"seconds", median},
          {"spread", seconds.back() - seconds.front()},
          {"tokens_per_second", 1 / median},
          {"bytes_per_second", bytes / median},
          {"copy_bytes_per_second", copy_rate},
          {"share", bytes / median / copy_rate}};
}

}  // namespace

void bench_model_cuda(const BenchModelFlags& flags) {
  const Subject subject = load_subject(flags);
  std::vector<double> densities{1.0};
  for (const double density : flags.densities)
    if (density < 1) densities.push_back(density);
  const bool is_sparse = densities.size() > 1;
  std::unique_ptr<Gate> own_gate;
  if (subject.random_gate == nullptr && is_sparse && flags.selector == "gate")
    own_gate = std::make_unique<Gate>(load_gate(flags.model, subject.transformer->config()));
  const Gate* gate = subject.random_gate != nullptr ? subject.random_gate.get() : own_gate.get();

  const std::string device = cuda::device_roof().name;
  nlohmann::ordered_json document{{"benchmark", "model"},
                                  {"device", device},
                                  {"shape", subject.name},
                                  {"dtype", dtype_name(Device::kCuda, subject.transformer->options())},
                                  {"selector", flags.selector},
                                  {"prefill", nlohmann::ordered_json::array()},
                                  {"decode", nlohmann::ordered_json::array()}};
  fmt::print("{}, {}\n", device, subject.name);
  if (!flags.lengths.empty())
    fmt::print("{:>8} {:>8} {:>10} {:>10} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  (stages in %)\n",
               "tokens", "density", "seconds", "tokens/s", "proj", "rope", "gate", "select", "attn", "mlp",
               "other");
  for (const std::int64_t length : flags.lengths)
    for (const double density : densities)
      document["prefill"].push_back(bench_prefill(flags, subject, gate, length, density));
  const double copy_rate = flags.contexts.empty() ? 0 : cuda::copy_bytes_per_second();
  for (const std::int64_t context : flags.contexts)
    document["decode"].push_back(bench_decode(flags, subject, context, copy_rate));
  if (flags.json.empty()) return;
  write_json_file(flags.json, document.dump(1));
}
