#include "eval/generation_eval.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"
#include "core/progress.h"

namespace seer {
namespace {

using Rule = SparsityOptions::Rule;

/// Prompts that are decoded together where a sample's settings are fewer: as many rows as products with
/// stored weights take at once. An interruption costs no more than these.
constexpr std::size_t kBatchPrompts = 8;
/// Tokens of their KV caches, which bounds memory.
constexpr std::int64_t kBatchTokens = 64 << 10;

std::string_view bytes_of(std::span<const std::int32_t> ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size_bytes()};
}

/// Whether a setting's amount is known only when the gate has run on the same sample.
bool follows_gate(const EvalSetting& setting) {
  return setting.is_baseline() && setting.sparsity.rule != Rule::kNzRatio;
}

/// For each setting that follows the gate, the gate's setting.
std::vector<std::size_t> find_leaders(std::span<const EvalSetting> settings) {
  std::vector<std::size_t> leaders(settings.size(), 0);
  for (std::size_t i = 0; i < settings.size(); ++i) {
    if (!follows_gate(settings[i])) continue;
    const auto leader = std::find_if(
        settings.begin(), settings.begin() + static_cast<std::ptrdiff_t>(i), [&](const EvalSetting& other) {
          return other.selector == SelectorKind::kGate && other.sparsity.rule == settings[i].sparsity.rule &&
                 other.sparsity.value == settings[i].sparsity.value;
        });
    SEER_CHECK(leader != settings.begin() + static_cast<std::ptrdiff_t>(i),
               "--selectors {}: under the rule {} it computes as many blocks as the gate does; expected gate "
               "among the selectors, or the rule nz_ratio",
               name_of(settings[i].selector), name_of(settings[i].sparsity.rule));
    leaders[i] = static_cast<std::size_t>(leader - settings.begin());
  }
  return leaders;
}

/// What decides about the record, and so names it in the log.
std::string record_key(const GenerationSample& sample, const EvalSetting& setting,
                       const GenerationRequest& request) {
  Fingerprint key;
  key.add(request.label).add(request.fingerprint);
  add_setting(key, setting, request.gate_fingerprint, request.seed);
  if (follows_gate(setting)) key.add(request.gate_fingerprint);
  key.add(sample.task).add(sample.id).add(sample.bucket).add(sample.members);
  key.add(static_cast<std::uint64_t>(sample.max_new_tokens))
      .add(static_cast<std::uint64_t>(sample.min_new_tokens))
      .add(bytes_of(sample.end_tokens));
  for (const std::string& stop : sample.stop) key.add(stop);
  return key.add(bytes_of(sample.prompt)).hex();
}

nlohmann::ordered_json to_json(const GenerationRecord& record) {
  return {{"prediction", record.prediction},
          {"tokens", record.tokens},
          {"finish", record.finish},
          {"score", record.score},
          {"prompt_tokens", record.prompt_tokens},
          {"selected_blocks", record.selected_blocks},
          {"causal_blocks", record.causal_blocks},
          {"ttft_seconds", record.ttft_seconds},
          {"select_seconds", record.select_seconds},
          {"attention_seconds", record.attention_seconds}};
}

GenerationRecord record_from_json(const std::string& text, const std::string& label) {
  try {
    const auto json = nlohmann::json::parse(text);
    return {.prediction = json.at("prediction").get<std::string>(),
            .tokens = json.at("tokens").get<std::vector<std::int32_t>>(),
            .finish = json.at("finish").get<std::string>(),
            .prompt_tokens = json.at("prompt_tokens").get<std::int64_t>(),
            .selected_blocks = json.at("selected_blocks").get<std::int64_t>(),
            .causal_blocks = json.at("causal_blocks").get<std::int64_t>(),
            .ttft_seconds = json.at("ttft_seconds").get<double>(),
            .select_seconds = json.at("select_seconds").get<double>(),
            .attention_seconds = json.at("attention_seconds").get<double>()};
  } catch (const nlohmann::json::exception& error) {
    fail("{}: a sample's record is not as seer writes it: {}; remove it", label, error.what());
  }
}

/// A record's log line without its key and braces.
std::string log_members(const GenerationSample& sample, const EvalSetting& setting,
                        const GenerationRecord& record, const std::string& provenance) {
  nlohmann::ordered_json json{{"task", sample.task},         {"id", sample.id},
                              {"bucket", sample.bucket},     {"selector", name_of(setting.selector)},
                              {"rule", setting.rule_name()}, {"value", setting.sparsity.value}};
  json.update(to_json(record));
  const std::string text = json.dump();
  std::string members = text.substr(1, text.size() - 2);
  for (const std::string& more : {sample.members, provenance})
    if (!more.empty()) members += "," + more;
  return members;
}

/// Relative time of one record: the prefill, and decoding at several times the cost per token.
double cost_of(const ModelConfig& config, const GenerationSample& sample, const EvalSetting& setting) {
  constexpr double kDecodeFactor = 4;
  const auto tokens = static_cast<std::int64_t>(sample.prompt.size());
  if (tokens == 0) return 0;
  return prefill_cost(config, tokens, setting) +
         kDecodeFactor * static_cast<double>(sample.max_new_tokens) *
             (prefill_cost(config, tokens, {}) / static_cast<double>(tokens));
}

/// One evaluation on its way.
class Run {
 public:
  Run(Transformer& model, const Tokenizer& tokenizer, const Gate* gate,
      std::span<const GenerationSample> samples, const GenerationRequest& request, SampleLog* log,
      bool show_progress, const std::function<void(std::size_t, const GenerationResults&)>& on_sample)
      : model_(model),
        tokenizer_(tokenizer),
        samples_(samples),
        request_(request),
        log_(log),
        on_sample_(on_sample),
        leaders_(find_leaders(request.settings)),
        batch_(model, tokenizer),
        show_progress_(show_progress),
        progress_(request.label, total_cost(), show_progress) {
    for (const EvalSetting& setting : request.settings)
      selectors_.push_back(follows_gate(setting) ? nullptr
                                                 : make_selector(setting.selector, setting.sparsity,
                                                                 model.config(), gate, request.seed));
    results_.records.assign(samples.size(),
                            std::vector<std::optional<GenerationRecord>>(request.settings.size()));
  }

  GenerationResults take() {
    count_known();
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      const auto tokens = static_cast<std::int64_t>(samples_[i].prompt.size());
      const std::size_t settings = request_.settings.size();
      if (batch_.size() + settings > kBatchPrompts ||
          batch_tokens_ + tokens * static_cast<std::int64_t>(settings) > kBatchTokens)
        finish_batch();
      run_sample(i);
    }
    finish_batch();
    return std::move(results_);
  }

 private:
  /// A prefilled sample that waits for its tokens.
  struct Pending {
    std::size_t sample = 0, setting = 0;
    std::string key;
  };

  double total_cost() const {
    double total = 0;
    for (const GenerationSample& sample : samples_)
      for (const EvalSetting& setting : request_.settings) total += cost_of(model_.config(), sample, setting);
    return total;
  }

  const std::string* find(const std::string& key) const {
    return log_ == nullptr ? nullptr : log_->find(key);
  }

  /// Why a sample cannot be run, or an empty text.
  std::string defect_of(const GenerationSample& sample) const {
    if (!sample.defect.empty()) return sample.defect;
    const auto tokens = static_cast<std::int64_t>(sample.prompt.size());
    if (tokens == 0) return "the prompt has no tokens";
    if (tokens > model_.max_context())
      return fmt::format("the prompt has {} tokens, the context holds {}; raise it with --max-context",
                         tokens, model_.max_context());
    return {};
  }

  /// Says what is there already, and warms up for the rest; a setting that cannot run is found here, not
  /// after an hour of dense runs.
  void count_known() {
    double known_cost = 0;
    std::int64_t known = 0;
    const GenerationSample* first_missing = nullptr;
    for (const GenerationSample& sample : samples_) {
      for (const EvalSetting& setting : request_.settings) {
        if (find(record_key(sample, setting, request_)) != nullptr) {
          known_cost += cost_of(model_.config(), sample, setting);
          ++known;
        } else if (first_missing == nullptr && defect_of(sample).empty()) {
          first_missing = &sample;
        }
      }
    }
    if (known > 0)
      progress_.message(fmt::format("{}: {} of {} samples are there already", log_->path(), known,
                                    samples_.size() * request_.settings.size()));
    if (first_missing != nullptr) warm_up(model_, first_missing->prompt, selectors_);
    progress_.skip(known_cost);
  }

  void report(const std::string& message) {
    if (show_progress_)
      progress_.message(message);
    else
      fmt::print(stderr, "{}\n", message);
  }

  void run_sample(std::size_t i) {
    const GenerationSample& sample = samples_[i];
    std::string defect = defect_of(sample);
    for (std::size_t s = 0; s < request_.settings.size() && defect.empty(); ++s) {
      std::string key = record_key(sample, request_.settings[s], request_);
      if (const std::string* known = find(key)) {
        results_.records[i][s] = record_from_json(*known, log_->path());
        results_.records[i][s]->score = request_.score(i, results_.records[i][s]->prediction);
        done_cost_ += cost_of(model_.config(), sample, request_.settings[s]);
        continue;
      }
      if (batch_.size() == GenerationBatch::kMaxIndependent) finish_batch();
      try {
        prefill(i, s);
      } catch (const Error& error) {
        defect = error.what();
        break;
      }
      pending_.push_back({i, s, std::move(key)});
    }
    if (!defect.empty()) {
      ++results_.failed;
      failed_.push_back(i);
      report(fmt::format("seer: failed sample: {}: {}", sample.source, defect));
    }
    waiting_.push_back(i);
    if (pending_.empty()) finish_batch();
  }

  void prefill(std::size_t i, std::size_t s) {
    const GenerationSample& sample = samples_[i];
    const EvalSetting& setting = request_.settings[s];
    std::unique_ptr<Selector> own;
    Selector* selector = selectors_[s].get();
    if (follows_gate(setting)) {
      const GenerationRecord& gate = *results_.records[i][leaders_[s]];
      SparsityOptions sparsity = setting.sparsity;
      sparsity.rule = Rule::kNzRatio;
      sparsity.value = nz_ratio_for_blocks(gate.selected_blocks, gate.causal_blocks,
                                           blocks_for(static_cast<std::int64_t>(sample.prompt.size())),
                                           sparsity.last_block_dense);
      own = make_selector(setting.selector, sparsity, model_.config(), nullptr, request_.seed);
      selector = own.get();
    }
    const double cost = cost_of(model_.config(), sample, setting);
    const std::string note =
        fmt::format("{} {}, {}, {}", sample.task, sample.bucket, name_of(setting.selector), sample.id);
    const auto tokens = static_cast<double>(sample.prompt.size());
    const PrefillStats& stats =
        batch_.add(sample.prompt,
                   {.max_new_tokens = sample.max_new_tokens,
                    .min_new_tokens = sample.min_new_tokens,
                    .end_tokens = sample.end_tokens,
                    .stop = sample.stop},
                   selector, {}, [&](std::int64_t done) {
                     progress_.update(done_cost_ + cost * static_cast<double>(done) / tokens, note);
                   });
    done_cost_ += cost;
    batch_tokens_ += static_cast<std::int64_t>(sample.prompt.size()) + sample.max_new_tokens;
    results_.records[i][s] =
        GenerationRecord{.prompt_tokens = static_cast<std::int64_t>(sample.prompt.size()),
                         .selected_blocks = stats.selected_blocks,
                         .causal_blocks = stats.causal_blocks,
                         .ttft_seconds = stats.seconds,
                         .select_seconds = stats.select_seconds,
                         .attention_seconds = stats.attention_seconds};
  }

  /// Decodes what waits, logs it, and hands over the samples that are complete.
  void finish_batch() {
    std::vector<Generation> generations = batch_.finish();
    for (std::size_t p = 0; p < pending_.size(); ++p) {
      const auto& [i, s, key] = pending_[p];
      GenerationRecord& record = *results_.records[i][s];
      record.tokens = std::move(generations[p].tokens);
      // A text cut before a stop string ends within the tokens; any other is decoded whole, so that spaces
      // are cleaned up where the tokenizer asks for it.
      record.prediction = generations[p].reason == FinishReason::kStop ? std::move(generations[p].text)
                                                                       : tokenizer_.decode(record.tokens);
      record.finish = name_of(generations[p].reason);
      record.score = request_.score(i, record.prediction);
      if (log_ != nullptr)
        log_->append(key, log_members(samples_[i], request_.settings[s], record, request_.provenance));
    }
    for (const std::size_t i : failed_)
      std::fill(results_.records[i].begin(), results_.records[i].end(), std::nullopt);
    if (on_sample_)
      for (const std::size_t i : waiting_) on_sample_(i, results_);
    pending_.clear();
    waiting_.clear();
    failed_.clear();
    batch_tokens_ = 0;
  }

  Transformer& model_;
  const Tokenizer& tokenizer_;
  std::span<const GenerationSample> samples_;
  const GenerationRequest& request_;
  SampleLog* log_;
  const std::function<void(std::size_t, const GenerationResults&)>& on_sample_;
  std::vector<std::size_t> leaders_;
  std::vector<std::unique_ptr<Selector>> selectors_;  // nullptr: made for each sample
  GenerationBatch batch_;
  bool show_progress_;
  Progress progress_;
  GenerationResults results_;
  std::vector<Pending> pending_;      // in the order of batch_
  std::vector<std::size_t> waiting_;  // samples since the last finish_batch()
  std::vector<std::size_t> failed_;   // of them
  std::int64_t batch_tokens_ = 0;
  double done_cost_ = 0;
};

}  // namespace

double nz_ratio_for_blocks(std::int64_t selected, std::int64_t causal, std::int64_t total_blocks,
                           bool last_block_dense) {
  const std::int64_t n = total_blocks, all = n * (n + 1) / 2;
  const double wanted = static_cast<double>(selected) / static_cast<double>(causal);
  const auto density = [&](std::int64_t k) {
    std::int64_t blocks = 0;
    for (std::int64_t row = 0; row < n; ++row)
      blocks += last_block_dense && row >= n - 2 ? row + 1 : std::min(row + 1, k);
    return static_cast<double>(blocks) / static_cast<double>(all);
  };
  std::int64_t k = 1;
  while (k < n && density(k) < wanted) ++k;
  if (k == n) return 1;
  // Half a block more, so that rounding cannot lose one.
  const double left = 1 - (static_cast<double>(k) + 0.5) / static_cast<double>(n);
  return 1 - left * left;
}

GenerationSummary summarize(const GenerationResults& results, std::span<const std::size_t> samples,
                            std::size_t setting) {
  GenerationSummary sum;
  std::int64_t selected = 0, causal = 0;
  for (const std::size_t i : samples) {
    const std::optional<GenerationRecord>& record = results.records[i][setting];
    if (!record) {
      ++sum.failed;
      continue;
    }
    ++sum.samples;
    sum.empty_predictions += record->prediction.empty();
    selected += record->selected_blocks;
    causal += record->causal_blocks;
    sum.ttft_seconds += record->ttft_seconds;
    sum.select_seconds += record->select_seconds;
    sum.attention_seconds += record->attention_seconds;
  }
  if (sum.samples == 0) return sum;
  sum.density = static_cast<double>(selected) / static_cast<double>(causal);
  for (double* seconds : {&sum.ttft_seconds, &sum.select_seconds, &sum.attention_seconds})
    *seconds /= static_cast<double>(sum.samples);
  return sum;
}

GenerationResults evaluate_generation(
    Transformer& model, const Tokenizer& tokenizer, const Gate* gate,
    std::span<const GenerationSample> samples, const GenerationRequest& request, SampleLog* log,
    bool show_progress,
    const std::function<void(std::size_t sample, const GenerationResults& results)>& on_sample) {
  return Run(model, tokenizer, gate, samples, request, log, show_progress, on_sample).take();
}

}  // namespace seer
