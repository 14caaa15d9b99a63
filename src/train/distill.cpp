#include "train/distill.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/check.h"
#include "core/mix.h"
#include "core/progress.h"
#include "io/mapped_file.h"
#include "io/tensor_file.h"
#include "train/adam.h"
#include "train/gate_trainer.h"
#include "train/sample_set.h"
#include "train/target_cache.h"

namespace seer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// FNV-1a.
class Hash {
 public:
  void add(const void* data, std::size_t bytes) {
    const auto* p = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) state_ = (state_ ^ p[i]) * 0x100000001b3u;
  }
  void add(std::string_view text) { add(text.data(), text.size()); }
  std::string hex() const { return fmt::format("{:016x}", state_); }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

/// Tells models apart by their configuration and the ends of their weight files.
std::string model_fingerprint(const std::string& folder) {
  constexpr std::size_t kEnd = 1 << 16;
  Hash hash;
  hash.add(read_file((fs::path(folder) / "config.json").string()));
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const auto mapped = MappedFile::open(file.string());
    const auto bytes = mapped->bytes();
    const std::size_t end = std::min(kEnd, bytes.size());
    hash.add(fmt::format("{} {}", file.filename().string(), bytes.size()));
    hash.add(bytes.data(), end);
    hash.add(bytes.data() + bytes.size() - end, end);
  }
  return hash.hex();
}

std::string sequence_fingerprint(const std::string& model, const GateConfig& gate,
                                 const std::vector<std::int32_t>& tokens) {
  Hash hash;
  hash.add(fmt::format("{} {} {} ", model, gate.q_pools, gate.k_pools));
  hash.add(tokens.data(), tokens.size() * sizeof(tokens[0]));
  return hash.hex();
}

// ---- weights before the first step ----

Buffer<float> initial_matrices(GateInit init, std::int64_t heads, int in_dim, int out_dim, int avg_offset,
                               std::uint64_t seed) {
  const std::int64_t size = std::int64_t{in_dim} * out_dim;
  Buffer<float> weight(heads * size);
  if (init == GateInit::kIdentity) {
    std::fill(weight.begin(), weight.end(), 0.0f);
    for (std::int64_t head = 0; head < heads; ++head)
      for (std::int64_t d = 0; d < out_dim; ++d) weight[head * size + (avg_offset + d) * out_dim + d] = 1.0f;
    return weight;
  }
  const double range = std::sqrt(6.0 / (in_dim + out_dim));
  for (std::int64_t i = 0; i < weight.size(); ++i) {
    const double uniform = static_cast<double>(mix(seed ^ static_cast<std::uint64_t>(i)) >> 11) * 0x1p-53;
    weight[i] = static_cast<float>(range * (2 * uniform - 1));
  }
  return weight;
}

/// Channels of the pooled input before the mean's: it comes last.
int avg_offset(unsigned pools, int width, int head_dim) {
  return (pools & kPoolAvg) != 0 ? width - head_dim : -1;
}

TrainState initial_state(const DistillOptions& options, const ModelConfig& model) {
  const GateShape shape(options.gate, model);
  const int q_avg = avg_offset(options.gate.q_pools, shape.q_width, model.head_dim);
  const int k_avg = avg_offset(options.gate.k_pools, shape.k_width, model.head_dim);
  SEER_CHECK(
      options.init == GateInit::kXavier || (q_avg >= 0 && k_avg >= 0 && shape.dim == model.head_dim),
      "--init identity: expected a gate with avg pools of q and k and a hidden size of {}, found {} with {}; "
      "use --init xavier",
      model.head_dim, options.gate.gate_type, shape.dim);
  TrainState state;
  state.gate.config = options.gate;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const std::uint64_t seed = mix(mix(options.seed) ^ static_cast<std::uint64_t>(layer));
    GateLayer weights;
    weights.k_weight = initial_matrices(options.init, state.gate.num_k_heads(model), shape.k_width, shape.dim,
                                        k_avg, mix(seed ^ 'k'));
    if (shape.has_q_linear)
      weights.q_weight =
          initial_matrices(options.init, shape.num_heads, shape.q_width, shape.dim, q_avg, mix(seed ^ 'q'));
    state.k.emplace_back(weights.k_weight.size());
    state.q.emplace_back(weights.q_weight.size());
    state.gate.layers.push_back(std::move(weights));
  }
  return state;
}

// ---- checkpoint ----

constexpr const char* kCheckpoint = "checkpoint.safetensors";

/// Calls visit(name, buffer) for everything that training changes.
template <class State, class Visit>
void for_each_tensor(State& state, Visit&& visit) {
  for (std::size_t layer = 0; layer < state.gate.layers.size(); ++layer) {
    for (const char which : {'k', 'q'}) {
      auto& weights = state.gate.layers[layer];
      auto& weight = which == 'k' ? weights.k_weight : weights.q_weight;
      auto& moments = which == 'k' ? state.k[layer] : state.q[layer];
      if (weight.size() == 0) continue;
      const std::string name = gate_tensor_name(static_cast<int>(layer), which);
      visit(name, weight);
      visit(name + ".m", moments.m);
      visit(name + ".v", moments.v);
    }
  }
}

void save_checkpoint(const std::string& out, const TrainState& state, const std::string& settings) {
  std::vector<TensorToWrite> tensors;
  for_each_tensor(state, [&](const std::string& name, const Buffer<float>& buffer) {
    tensors.push_back({name, DType::kF32, {buffer.size()}, buffer.data()});
  });
  write_safetensors((fs::path(out) / kCheckpoint).string(), tensors,
                    {{"settings", settings},
                     {"step", std::to_string(state.step)},
                     {"seconds", fmt::format("{:.3f}", state.seconds)},
                     {"log", state.log}});
  write_file_atomically((fs::path(out) / "distill.jsonl").string(), state.log);
}

[[noreturn]] void fail_settings(const std::string& path) {
  fail("{}: belongs to a run with other settings, data or model; remove it or choose another --out", path);
}

/// False: there is none.
bool load_checkpoint(const std::string& out, TrainState& state, const std::string& settings) {
  const std::string path = (fs::path(out) / kCheckpoint).string();
  if (!fs::exists(path)) return false;
  const TensorStore store = TensorStore::open_safetensors(path);
  const auto metadata = [&](const char* key) {
    const auto found = store.metadata().find(key);
    SEER_CHECK(found != store.metadata().end(), "{}: expected the metadata key {}, found none", path, key);
    return found->second;
  };
  if (metadata("settings") != settings) fail_settings(path);
  for_each_tensor(state, [&](const std::string& name, Buffer<float>& buffer) {
    const std::int64_t shape[] = {buffer.size()};
    const auto values = store.get(name, shape).as<float>();
    std::copy(values.begin(), values.end(), buffer.begin());
  });
  state.step = std::stoll(metadata("step"));
  state.seconds = std::stod(metadata("seconds"));
  state.log = metadata("log");
  return true;
}

// ---- measuring ----

/// Blocks by the logarithm of their predicted probability, so that any threshold's density and recall can be
/// read off.
class ScoreHistogram {
 public:
  static constexpr int kBins = 4096;

  void add(float probability, float target) {
    const double place = (std::log2(std::max(probability, 1e-12f)) + kOctaves) * (kBins / kOctaves);
    const auto bin = static_cast<std::size_t>(std::clamp(place, 0.0, kBins - 1.0));
    blocks_[bin] += 1;
    mass_[bin] += target;
  }
  void add(const ScoreHistogram& other) {
    for (std::size_t bin = 0; bin < kBins; ++bin)
      blocks_[bin] += other.blocks_[bin], mass_[bin] += other.mass_[bin];
  }
  /// The lowest bin of the best blocks that make up `density`, and the share of it that still belongs.
  std::pair<std::size_t, double> cut(double density) const {
    double left = density * std::accumulate(blocks_.begin(), blocks_.end(), 0.0);
    for (std::size_t bin = kBins; bin-- > 0;) {
      if (blocks_[bin] >= left && blocks_[bin] > 0) return {bin, left / blocks_[bin]};
      left -= blocks_[bin];
    }
    return {0, 1.0};
  }
  double recall(std::pair<std::size_t, double> cut) const {
    const auto first = mass_.begin() + static_cast<std::ptrdiff_t>(cut.first);
    return (std::accumulate(first + 1, mass_.end(), 0.0) + cut.second * *first) /
           std::accumulate(mass_.begin(), mass_.end(), 0.0);
  }

 private:
  static constexpr double kOctaves = 40;
  std::vector<double> blocks_ = std::vector<double>(kBins, 0.0);
  std::vector<double> mass_ = std::vector<double>(kBins, 0.0);
};

GateQuality measure(const Context& context, const ModelConfig& model, const Gate& gate, const SampleSet& set,
                    double density) {
  const SingleThreadedProducts single_threaded;
  const GateShape& shape = set.shape;
  const std::int64_t items = std::int64_t{model.num_layers} * shape.num_kv_heads;
  std::vector<double> losses(static_cast<std::size_t>(items), 0.0);
  std::vector<ScoreHistogram> histograms(static_cast<std::size_t>(items));
  std::vector<GateGradient> workers = make_workers(context, shape);
  context.parallel_for(items, [&](std::int64_t item, int thread) {
    const auto layer = static_cast<std::size_t>(item / shape.num_kv_heads);
    const int kv_head = static_cast<int>(item % shape.num_kv_heads);
    const Context single(1);
    for (const auto& layers : set.samples) {
      const GateSample& sample = layers[layer];
      const std::int64_t n = sample.n;
      const RowWeights rows(GateLoss::kRow, n, shape.num_heads);
      workers[static_cast<std::size_t>(thread)].forward(
          sample, kv_head, gate.layers[layer], [&](int, float* scores, const float* target) {
            losses[static_cast<std::size_t>(item)] +=
                gate_kl_loss(single, scores, target, 1, n, n, 0, rows.weight, nullptr) /
                static_cast<double>(set.samples.size());
            causal_softmax(single, scores, 1, n, 0, n);
            for (std::int64_t row = 0; row < n; ++row)
              for (std::int64_t j = 0; j <= row; ++j)
                histograms[static_cast<std::size_t>(item)].add(scores[row * n + j], target[row * n + j]);
          });
    }
  });
  GateQuality quality;
  quality.loss.assign(static_cast<std::size_t>(model.num_layers), 0.0);
  std::vector<ScoreHistogram> by_layer(static_cast<std::size_t>(model.num_layers));
  ScoreHistogram all;
  for (std::int64_t item = 0; item < items; ++item) {
    const auto layer = static_cast<std::size_t>(item / shape.num_kv_heads);
    quality.loss[layer] += losses[static_cast<std::size_t>(item)];
    by_layer[layer].add(histograms[static_cast<std::size_t>(item)]);
    all.add(histograms[static_cast<std::size_t>(item)]);
  }
  for (const ScoreHistogram& histogram : by_layer)
    quality.recall.push_back(histogram.recall(all.cut(density)));
  return quality;
}

// ---- the run ----

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

class Run {
 public:
  Run(Transformer& model, const std::vector<std::vector<std::int32_t>>& sequences,
      const DistillOptions& options)
      : model_(model), sequences_(sequences), options_(options), config_(model.config()) {
    const auto count = static_cast<std::int64_t>(sequences.size());
    SEER_CHECK(options.steps > 0 && options.batch > 0, "--steps, --batch: expected positive numbers");
    SEER_CHECK(options.held_out > 0 && options.held_out < count,
               "--held-out: expected at least 1 and fewer than the {} sequences, found {}", count,
               options.held_out);
    cache_ = options.cache.empty() ? fs::path(options.out) / "cache" : fs::path(options.cache);
    const std::string model_print = model_fingerprint(options.model_folder);
    Hash data;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto& tokens = sequences[static_cast<std::size_t>(i)];
      prints_.push_back(sequence_fingerprint(model_print, options.gate, tokens));
      data.add(prints_.back());
      files_.push_back((cache_ / fmt::format("{}.safetensors", prints_.back())).string());
      // Sequences i with i * held_out crossing a multiple of count: spread evenly.
      const bool held_out = (i + 1) * options.held_out / count != i * options.held_out / count;
      (held_out ? held_out_ : training_).push_back(files_.back());
    }
    settings_ = Json{{"device", name_of(model.device())},
                     {"model", model_print},
                     {"data", data.hex()},
                     {"gate_type", options.gate.gate_type},
                     {"gate_hidden_size", options.gate.gate_hidden_size},
                     {"force_double", options.gate.force_double},
                     {"loss", options.loss == GateLoss::kRow ? "row" : "reference"},
                     {"init", options.init == GateInit::kIdentity ? "identity" : "xavier"},
                     {"learning_rate", options.learning_rate},
                     {"warmup_steps", options.warmup_steps},
                     {"steps", options.steps},
                     {"batch", options.batch},
                     {"training_sequences", training_.size()},
                     {"held_out_sequences", held_out_.size()},
                     {"seed", options.seed}};
  }

  DistillResult run() {
    if (is_finished()) return result_;
    for (const fs::path& folder : {fs::path(options_.out), cache_}) {
      std::error_code error;
      fs::create_directories(folder, error);
      SEER_CHECK(!error, "{}: cannot create the folder: {}", folder.string(), error.message());
    }
    build_cache();
    return train();
  }

 private:
  fs::path done_path() const { return fs::path(options_.out) / "distill.json"; }

  bool is_finished() {
    if (!fs::exists(done_path())) return false;
    const Json done = Json::parse(read_file(done_path().string()), nullptr, /*allow_exceptions=*/false);
    if (done.is_discarded() || done.value("settings", Json()) != settings_)
      fail_settings(done_path().string());
    result_ = {.finished = true,
               .steps = options_.steps,
               .seconds = done.value("seconds", 0.0),
               .quality = {.loss = done.value("held_out_loss", std::vector<double>()),
                           .recall = done.value("recall", std::vector<double>())}};
    return true;
  }

  void build_cache() {
    const auto work = [&](std::size_t i) {
      // Attention grows with the square of the length and outweighs the rest from some 2k tokens on.
      const auto tokens = static_cast<double>(sequences_[i].size());
      return tokens * (2048 + tokens);
    };
    double total = 0, done = 0;
    for (std::size_t i = 0; i < files_.size(); ++i) total += work(i);
    Progress progress("distill: targets", total, options_.show_progress);
    for (std::size_t i = 0; i < files_.size(); ++i) {
      const double all = work(i);
      if (cached_fingerprint(files_[i]) == prints_[i]) {
        progress.skip(all);
      } else {
        const auto tokens = static_cast<double>(sequences_[i].size());
        write_cached_sequence(
            files_[i], model_, options_.gate, sequences_[i], prints_[i], [&](std::int64_t at) {
              const auto part = static_cast<double>(at);
              progress.update(done + part * (2048 + part) / (tokens * (2048 + tokens)) * all);
            });
      }
      done += all;
      progress.update(done, fmt::format("sequence {} of {}", i + 1, files_.size()));
    }
  }

  /// Training sequences of a step: all of them once, in an order of its own, before any comes again.
  std::vector<std::size_t> batch_of(std::int64_t step) {
    std::vector<std::size_t> batch;
    const auto count = static_cast<std::int64_t>(training_.size());
    for (std::int64_t i = step * options_.batch; i < (step + 1) * options_.batch; ++i) {
      if (i / count != epoch_) {
        epoch_ = i / count;
        order_.resize(training_.size());
        std::iota(order_.begin(), order_.end(), 0);
        const std::uint64_t stream = mix(mix(options_.seed) ^ static_cast<std::uint64_t>(epoch_));
        for (std::size_t j = order_.size(); j-- > 1;) std::swap(order_[j], order_[mix(stream ^ j) % (j + 1)]);
      }
      batch.push_back(order_[static_cast<std::size_t>(i % count)]);
    }
    return batch;
  }

  /// One update of all gates; losses by layer.
  std::vector<double> train_step(TrainState& state, GateTrainer& trainer) {
    const std::vector<std::size_t> batch = batch_of(state.step);
    const std::int64_t step = state.step + 1;
    std::vector<double> losses = trainer.step(
        batch, step,
        cosine_learning_rate(options_.learning_rate, options_.warmup_steps, options_.steps, step));
    state.step = step;
    return losses;
  }

  DistillResult train() {
    TrainState state = initial_state(options_, config_);
    load_checkpoint(options_.out, state, settings_.dump());
    const SampleSet training(training_, options_.gate, config_), held_out(held_out_, options_.gate, config_);
    const std::unique_ptr<GateTrainer> trainer =
        model_.device() == Device::kCuda ? make_cuda_trainer(training, options_.loss, state)
                                         : make_cpu_trainer(model_.context(), training, options_.loss, state);
    Progress progress("distill: training", static_cast<double>(options_.steps), options_.show_progress);
    progress.skip(static_cast<double>(state.step));

    const auto evaluate = [&] {
      trainer->read_back();
      GateQuality quality = measure(model_.context(), config_, state.gate, held_out, options_.recall_density);
      state.log +=
          Json{{"step", state.step}, {"held_out_loss", quality.loss}, {"recall", quality.recall}}.dump() +
          "\n";
      progress.message(fmt::format("step {}: held-out loss {:.4f}, recall at density {:.2f} {:.4f}",
                                   state.step, mean(quality.loss), options_.recall_density,
                                   mean(quality.recall)));
      return quality;
    };
    if (state.step == 0) evaluate();
    std::int64_t steps_here = 0;
    while (state.step < options_.steps) {
      const auto start = Clock::now();
      const std::vector<double> loss = train_step(state, *trainer);
      SEER_CHECK(std::isfinite(mean(loss)), "distill: the loss became {} at step {}; lower --lr", mean(loss),
                 state.step);
      const bool is_last = state.step == options_.steps;
      if (state.step % options_.log_every == 0 || is_last)
        state.log += Json{{"step", state.step}, {"loss", loss}}.dump() + "\n";
      if (state.step % options_.evaluate_every == 0 && !is_last) evaluate();
      state.seconds += seconds_since(start);
      progress.update(static_cast<double>(state.step), fmt::format("loss {:.4f}", mean(loss)));
      const bool stops = ++steps_here == options_.stop_after;
      if (state.step % options_.checkpoint_every == 0 || stops || is_last) {
        trainer->read_back();
        save_checkpoint(options_.out, state, settings_.dump());
      }
      if (stops && !is_last) return {.finished = false, .steps = state.step, .seconds = state.seconds};
    }
    return finish(state, evaluate());
  }

  DistillResult finish(TrainState& state, GateQuality quality) {
    write_file_atomically((fs::path(options_.out) / "distill.jsonl").string(), state.log);
    save_gate(options_.out, state.gate, config_, options_.model_folder, options_.save);
    const Json done{{"settings", settings_},
                    {"seconds", state.seconds},
                    {"held_out_loss", quality.loss},
                    {"recall_density", options_.recall_density},
                    {"recall", quality.recall}};
    write_file_atomically(done_path().string(), done.dump(1) + "\n");
    std::error_code ignored;  // what is left over costs only disk space
    fs::remove(fs::path(options_.out) / kCheckpoint, ignored);
    if (options_.cache.empty() && !options_.keep_cache) fs::remove_all(cache_, ignored);
    return {.finished = true, .steps = state.step, .seconds = state.seconds, .quality = std::move(quality)};
  }

  Transformer& model_;
  const std::vector<std::vector<std::int32_t>>& sequences_;
  const DistillOptions& options_;
  const ModelConfig& config_;
  fs::path cache_;
  std::vector<std::string> prints_, files_, training_, held_out_;
  Json settings_;
  DistillResult result_;
  std::int64_t epoch_ = -1;
  std::vector<std::size_t> order_;
};

}  // namespace

GateQuality measure_gate(const Context& context, const ModelConfig& model, const Gate& gate,
                         const std::vector<std::string>& cache_files, double density) {
  return measure(context, model, gate, SampleSet(cache_files, gate.config, model), density);
}

DistillResult distill(Transformer& model, const std::vector<std::vector<std::int32_t>>& sequences,
                      const DistillOptions& options) {
  return Run(model, sequences, options).run();
}

GateLoss parse_gate_loss(std::string_view name) {
  if (name == "row") return GateLoss::kRow;
  SEER_CHECK(name == "reference", "--loss: expected row or reference, found \"{}\"", name);
  return GateLoss::kReference;
}

GateInit parse_gate_init(std::string_view name) {
  if (name == "identity") return GateInit::kIdentity;
  SEER_CHECK(name == "xavier", "--init: expected identity or xavier, found \"{}\"", name);
  return GateInit::kXavier;
}

}  // namespace seer
