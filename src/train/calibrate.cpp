#include "train/calibrate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "model/gate_scorer.h"

namespace seer {
namespace {

/// Blocks of block rows by the logarithm of the cut that would still keep them, for every prompt length.
class CutHistogram {
 public:
  explicit CutHistogram(std::size_t lengths) : blocks_(lengths, std::vector<double>(kBins, 0.0)) {}

  static std::size_t bin_of(double cut) {
    return static_cast<std::size_t>(
        std::clamp((std::log2(std::max(cut, 1e-18)) + kOctaves) * kBinsPerOctave, 0.0, kBins - 1.0));
  }
  static double cut_of(double bin) { return std::exp2(bin / kBinsPerOctave - kOctaves); }

  void add(std::size_t length, std::size_t bin, double count) { blocks_[length][bin] += count; }
  void add(const CutHistogram& other) {
    for (std::size_t length = 0; length < blocks_.size(); ++length)
      for (std::size_t bin = 0; bin < kBins; ++bin) blocks_[length][bin] += other.blocks_[length][bin];
  }

  /// The cut that keeps this share of all blocks, linear inside a bin.
  double cut_for(std::size_t length, double density) const {
    const std::vector<double>& blocks = blocks_[length];
    double left = density * std::accumulate(blocks.begin(), blocks.end(), 0.0);
    for (std::size_t bin = kBins; bin-- > 0;) {
      if (blocks[bin] > 0 && blocks[bin] >= left)
        return cut_of(static_cast<double>(bin) + 1 - left / blocks[bin]);
      left -= blocks[bin];
    }
    return 0;
  }

  /// Share of blocks that a cut keeps: those of higher bins, and its part of its own.
  double density_at(std::size_t length, double cut) const {
    const std::vector<double>& blocks = blocks_[length];
    const std::size_t bin = bin_of(cut);
    const double above =
        std::accumulate(blocks.begin() + static_cast<std::ptrdiff_t>(bin) + 1, blocks.end(), 0.0);
    const double part =
        std::clamp(static_cast<double>(bin) + 1 - (std::log2(cut) + kOctaves) * kBinsPerOctave, 0.0, 1.0);
    return (above + part * blocks[bin]) / std::accumulate(blocks.begin(), blocks.end(), 0.0);
  }

 private:
  static constexpr std::size_t kBins = 60 * 64;
  static constexpr double kBinsPerOctave = 64, kOctaves = 60;
  std::vector<std::vector<double>> blocks_;
};

/// The cut is the rule's value; for kTopP it is the mass left out, 1 - value.
double value_of(SelectRule rule, double cut) { return rule == SelectRule::kTopP ? 1 - cut : cut; }

/// The selector's rule of the same name.
SparsityOptions::Rule rule_of(SelectRule rule) {
  switch (rule) {
    case SelectRule::kThreshold:
      return SparsityOptions::Rule::kThreshold;
    case SelectRule::kTopP:
      return SparsityOptions::Rule::kTopP;
    case SelectRule::kResidual:
      return SparsityOptions::Rule::kResidual;
    case SelectRule::kDense:
    case SelectRule::kNzRatio:
      break;
  }
  fail("calibrate: expected the rule threshold, top_p or residual");
}

/// Runs the gates beside a dense prefill and counts what every cut would keep.
class DenseProbe final : public LayerObserver {
 public:
  DenseProbe(const Context& context, const ModelConfig& model, const Gate& gate, SelectRule rule,
             const std::vector<std::int64_t>& lengths)
      : context_(context),
        gate_(gate),
        scorer_(model, gate),
        num_heads_(model.num_heads),
        rule_(rule),
        lengths_(lengths),
        histogram_(lengths.size()) {}

  ObserverWants wants() const override {
    return {.q_pools = gate_.config.q_pools, .k_pools = gate_.config.k_pools};
  }

  void observe(const LayerObservation& seen) override {
    if (seen.layer == 0 && seen.first_row == 0) scorer_.begin(seen.total_tokens);
    const std::int64_t rows = seen.rows;
    const GateScores scores =
        scorer_.score(context_, seen.layer, seen.first_row, rows, seen.q_pooled, seen.k_pooled);
    causal_softmax(context_, scores.data, num_heads_, rows, seen.first_row, scores.stride);
    std::vector<CutHistogram> parts(static_cast<std::size_t>(context_.num_threads()),
                                    CutHistogram(lengths_.size()));
    context_.parallel_for(num_heads_ * rows, [&](std::int64_t item, int thread) {
      const std::int64_t block_row = seen.first_row + item % rows;
      float* row = scores.data + item * scores.stride;
      if (rule_ != SelectRule::kThreshold) to_cuts(row, block_row + 1);
      // The best block of a row is always kept in number: an empty row gets its diagonal.
      *std::max_element(row, row + block_row + 1) = 1.0f;
      for (std::size_t length = 0; length < lengths_.size(); ++length) {
        if (lengths_[length] > seen.total_tokens || block_row >= blocks_for(lengths_[length])) continue;
        for (std::int64_t j = 0; j <= block_row; ++j)
          parts[static_cast<std::size_t>(thread)].add(length, CutHistogram::bin_of(row[j]), 1);
      }
    });
    for (const CutHistogram& part : parts) histogram_.add(part);
  }

  const CutHistogram& histogram() const { return histogram_; }

 private:
  /// Replaces each probability by the cut up to which its block is kept. kTopP: the mass of it and of all
  /// smaller ones, kept while that exceeds 1 - top_p. kResidual: itself times the same mass.
  void to_cuts(float* row, std::int64_t causal) const {
    std::vector<std::pair<float, std::int64_t>> order;
    for (std::int64_t j = 0; j < causal; ++j) order.emplace_back(row[j], j);
    std::sort(order.begin(), order.end());
    double mass = 0;
    for (const auto& [probability, j] : order) {
      mass += probability;
      row[j] = static_cast<float>(rule_ == SelectRule::kTopP ? mass : probability * mass);
    }
  }

  const Context& context_;
  const Gate& gate_;
  GateScorer scorer_;
  int num_heads_;
  SelectRule rule_;
  const std::vector<std::int64_t>& lengths_;
  CutHistogram histogram_;
};

/// Counts kept blocks up to every length.
class DensityCounter final : public LayerObserver {
 public:
  explicit DensityCounter(const std::vector<std::int64_t>& lengths)
      : lengths_(lengths), kept_(lengths.size(), 0), causal_(lengths.size(), 0) {}

  ObserverWants wants() const override { return {.mask = true}; }

  void observe(const LayerObservation& seen) override {
    const BlockMask& mask = *seen.mask;  // a cut below 1 is never dense
    for (std::size_t length = 0; length < lengths_.size(); ++length) {
      if (lengths_[length] > seen.total_tokens) continue;
      const std::int64_t rows = std::min(mask.num_rows(), blocks_for(lengths_[length]) - mask.first_row());
      for (int head = 0; head < mask.num_heads(); ++head) {
        for (std::int64_t row = 0; row < rows; ++row) {
          causal_[length] += mask.first_row() + row + 1;
          kept_[length] += mask.count(head, row);
        }
      }
    }
  }

  double density(std::size_t length) const {
    return static_cast<double>(kept_[length]) /
           static_cast<double>(std::max<std::int64_t>(causal_[length], 1));
  }

 private:
  const std::vector<std::int64_t>& lengths_;
  std::vector<std::int64_t> kept_, causal_;
};

/// Measured over predicted density of a sparse pass, for every length.
struct Shift {
  double cut;
  std::vector<double> factors;
};

/// The factor depends on the cut, which depends on the factor: it settles at once, as it is close to 1.
constexpr int kShiftRounds = 4;

/// Interpolated by the logarithm of the cut; `shifts` have rising cuts.
double factor_at(const std::vector<Shift>& shifts, double cut, std::size_t length) {
  const auto above = std::find_if(shifts.begin(), shifts.end(), [&](const Shift& s) { return s.cut >= cut; });
  if (above == shifts.begin()) return shifts.front().factors[length];
  if (above == shifts.end()) return shifts.back().factors[length];
  const Shift& low = *(above - 1);
  const double share = std::log(cut / low.cut) / std::log(above->cut / low.cut);
  return (1 - share) * low.factors[length] + share * above->factors[length];
}

}  // namespace

Calibration calibrate(Transformer& model, const Gate& gate,
                      const std::vector<std::vector<std::int32_t>>& sequences,
                      const CalibrateOptions& options) {
  SEER_CHECK(!options.lengths.empty() && !options.densities.empty(),
             "calibrate: expected lengths and densities");
  SEER_CHECK(std::is_sorted(options.lengths.begin(), options.lengths.end()) &&
                 std::is_sorted(options.densities.begin(), options.densities.end()) &&
                 options.densities.front() > 0 && options.densities.back() < 1,
             "calibrate: expected rising lengths, and rising densities between 0 and 1");
  const std::int64_t longest = options.lengths.back();
  std::vector<std::span<const std::int32_t>> prompts;
  double tokens = 0;
  for (const auto& sequence : sequences) {
    const auto size = static_cast<std::int64_t>(sequence.size());
    // The longest length that the sequence reaches.
    const auto above = std::upper_bound(options.lengths.begin(), options.lengths.end(), size);
    if (above == options.lengths.begin()) continue;
    prompts.emplace_back(sequence.data(), static_cast<std::size_t>(*(above - 1)));
    tokens += static_cast<double>(prompts.back().size());
  }
  SEER_CHECK(
      std::any_of(prompts.begin(), prompts.end(),
                  [&](const auto& prompt) { return static_cast<std::int64_t>(prompt.size()) == longest; }),
      "calibrate: expected a text of at least {} tokens, the longest of --lengths; found none", longest);

  const double sparse_work =
      options.refine ? std::accumulate(options.densities.begin(), options.densities.end(), 0.0) : 0.0;
  const double all_work = tokens * (1 + sparse_work);
  double work = 0;
  const auto run = [&](Selector* selector, LayerObserver& observer, double cost) {
    for (const auto& prompt : prompts) {
      Sequence sequence = model.new_sequence();
      const double before = work;
      model.prefill(sequence, {.tokens = prompt,
                               .selector = selector,
                               .observer = &observer,
                               .want_last_logits = false,
                               .on_progress = [&](std::int64_t done) {
                                 work = before + cost * static_cast<double>(done);
                                 if (options.on_progress) options.on_progress(work, all_work);
                               }});
    }
  };
  DenseProbe probe(model.context(), model.config(), gate, options.rule, options.lengths);
  run(nullptr, probe, 1);

  // Sparse passes at the cuts that the dense pass gives for the longest length: by how much densities shift.
  std::vector<Shift> shifts;
  for (std::size_t d = options.densities.size(); options.refine && d-- > 0;) {
    Shift shift{.cut = probe.histogram().cut_for(options.lengths.size() - 1, options.densities[d])};
    const auto selector = make_selector(
        SelectorKind::kGate, {.rule = rule_of(options.rule), .value = value_of(options.rule, shift.cut)},
        model.config(), &gate, 0);
    DensityCounter counter(options.lengths);
    run(selector.get(), counter, options.densities[d]);
    for (std::size_t l = 0; l < options.lengths.size(); ++l)
      shift.factors.push_back(counter.density(l) / probe.histogram().density_at(l, shift.cut));
    shifts.push_back(std::move(shift));
  }

  Calibration calibration{.rule = options.rule};
  for (std::size_t l = 0; l < options.lengths.size(); ++l) {
    Calibration::Length length{.tokens = options.lengths[l]};
    for (const double density : options.densities) {
      double cut = probe.histogram().cut_for(l, density);
      for (int round = 0; round < kShiftRounds && !shifts.empty(); ++round)
        cut = probe.histogram().cut_for(l, std::min(1.0, density / factor_at(shifts, cut, l)));
      length.points.push_back({density, value_of(options.rule, cut)});
    }
    calibration.lengths.push_back(std::move(length));
  }
  return calibration;
}

}  // namespace seer
