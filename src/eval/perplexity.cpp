#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/progress.h"
#include "eval/scoring.h"
#include "io/documents.h"

namespace seer {
namespace {

using Rule = SparsityOptions::Rule;

/// A window of one document with everything needed to run it.
struct Task {
  const EvalDocument* document = nullptr;
  PplWindow window;
  std::vector<std::int32_t> tokens;  // the start token included
  std::int64_t first_counted = 0;    // index into tokens
};

std::int64_t token_count(const Task& task) { return static_cast<std::int64_t>(task.tokens.size()); }

std::vector<Task> make_tasks(std::span<const EvalDocument> documents, std::int64_t length,
                             const PplRequest& request) {
  std::vector<Task> tasks;
  for (const EvalDocument& document : documents) {
    const auto windows = perplexity_windows(static_cast<std::int64_t>(document.ids.size()),
                                            request.start_token.has_value(), length, request.stride);
    for (const PplWindow& window : windows) {
      Task task{.document = &document, .window = window};
      const std::int64_t start_tokens = request.start_token ? 1 : 0;
      task.first_counted = window.first_counted - window.begin + start_tokens;
      task.tokens.resize(static_cast<std::size_t>(start_tokens + window.end - window.begin));
      if (request.start_token) task.tokens.front() = *request.start_token;
      std::copy(document.ids.begin() + window.begin, document.ids.begin() + window.end,
                task.tokens.begin() + start_tokens);
      tasks.push_back(std::move(task));
    }
  }
  return tasks;
}

/// What decides about the sample's numbers, and so names it in the log.
std::string sample_key(const Task& task, const EvalSetting& setting, const PplRequest& request) {
  Fingerprint key;
  key.add(request.fingerprint);
  add_setting(key, setting, request.gate_fingerprint, request.seed);
  key.add(static_cast<std::uint64_t>(task.first_counted));
  key.add(std::string_view(reinterpret_cast<const char*>(task.tokens.data()), task.tokens.size() * 4));
  return key.hex();
}

nlohmann::ordered_json to_json(const PplSample& sample) {
  return {{"nll", sample.nll},
          {"tokens", sample.tokens},
          {"counted", sample.counted},
          {"selected_blocks", sample.selected_blocks},
          {"causal_blocks", sample.causal_blocks},
          {"prefill_seconds", sample.prefill_seconds},
          {"select_seconds", sample.select_seconds},
          {"attention_seconds", sample.attention_seconds}};
}

PplSample sample_from_json(const std::string& text, const std::string& label) {
  try {
    const auto json = nlohmann::json::parse(text);
    return {.nll = json.at("nll").get<double>(),
            .tokens = json.at("tokens").get<std::int64_t>(),
            .counted = json.at("counted").get<std::int64_t>(),
            .selected_blocks = json.at("selected_blocks").get<std::int64_t>(),
            .causal_blocks = json.at("causal_blocks").get<std::int64_t>(),
            .prefill_seconds = json.at("prefill_seconds").get<double>(),
            .select_seconds = json.at("select_seconds").get<double>(),
            .attention_seconds = json.at("attention_seconds").get<double>()};
  } catch (const nlohmann::json::exception& error) {
    fail("{}: a sample's record is not as seer writes it: {}; remove it", label, error.what());
  }
}

template <class Value>
double mean_of(const std::vector<PplSample>& samples, Value PplSample::*member) {
  double sum = 0;
  for (const PplSample& sample : samples) sum += static_cast<double>(sample.*member);
  return samples.empty() ? 0 : sum / static_cast<double>(samples.size());
}

std::vector<std::unique_ptr<Selector>> make_selectors(const Transformer& model, const Gate* gate,
                                                      const PplRequest& request) {
  std::vector<std::unique_ptr<Selector>> selectors;
  for (const EvalSetting& setting : request.settings) {
    selectors.push_back(
        make_selector(setting.selector, setting.sparsity, model.config(), gate, request.seed));
    // A gate without a calibration is found here, not after an hour of dense runs.
    for (const std::int64_t length : request.lengths) selectors.back()->begin(length);
  }
  return selectors;
}

PplSample run_task(Transformer& model, const Task& task, Selector* selector,
                   const std::function<void(double share)>& on_progress) {
  const std::int64_t tokens = token_count(task);
  TokenScores scores;
  try {
    scores = score_tokens(model, task.tokens, selector, [&](std::int64_t done) {
      on_progress(static_cast<double>(done) / static_cast<double>(tokens));
    });
  } catch (const Error& error) {
    fail("{}: {}", task.document->name, error.what());
  }
  const PrefillStats& stats = scores.stats;
  return {
      .nll = mean_nll(std::span(scores.logprobs).subspan(static_cast<std::size_t>(task.first_counted - 1))),
      .tokens = tokens,
      .counted = tokens - task.first_counted,
      .selected_blocks = stats.selected_blocks,
      .causal_blocks = stats.causal_blocks,
      .prefill_seconds = stats.seconds - stats.logits_seconds,
      .select_seconds = stats.select_seconds,
      .attention_seconds = stats.attention_seconds};
}

/// A sample's log line without its key and braces.
std::string log_members(const PplRow& row, const Task& task, const PplSample& sample,
                        const std::string& provenance) {
  nlohmann::ordered_json record{{"document", task.document->name},
                                {"begin", task.window.begin},
                                {"length", row.length},
                                {"selector", name_of(row.setting.selector)},
                                {"rule", row.rule_name()},
                                {"value", row.setting.sparsity.value}};
  record.update(to_json(sample));
  const std::string text = record.dump();
  return text.substr(1, text.size() - 2) + (provenance.empty() ? "" : ",") + provenance;
}

}  // namespace

std::vector<PplWindow> perplexity_windows(std::int64_t tokens, bool start_token, std::int64_t length,
                                          std::int64_t stride) {
  const std::int64_t body = start_token ? length - 1 : length;
  SEER_CHECK(length >= 2, "perplexity: expected a length of at least 2 tokens, found {}", length);
  SEER_CHECK(stride >= 0 && stride <= body, "perplexity: expected a stride of 0 to {} tokens, found {}", body,
             stride);
  std::vector<PplWindow> windows;
  std::int64_t counted_to = 0;
  for (std::int64_t begin = 0; begin < tokens; begin += stride) {
    const std::int64_t end = std::min(begin + body, tokens);
    // Without a start token the first token of a window has no loss.
    const std::int64_t first = std::max(counted_to, start_token ? begin : begin + 1);
    if (first < end) windows.push_back({begin, end, first});
    counted_to = end;
    if (stride == 0 || end == tokens) break;
  }
  return windows;
}

double mean_nll(std::span<const float> logprobs) {
  double sum = 0;
  for (const float logprob : logprobs) sum -= logprob;
  return sum / static_cast<double>(logprobs.size());
}

double perplexity_of(std::span<const double> window_losses) {
  double sum = 0;
  for (const double loss : window_losses) sum += loss;
  return std::exp(sum / static_cast<double>(window_losses.size()));
}

EvalData load_eval_data(const EvalDataRequest& request, const Tokenizer* tokenizer) {
  const bool is_folder = std::filesystem::is_directory(request.path);
  const bool joined = !request.path.ends_with(".jsonl");
  const std::vector<Document> sources =
      read_documents(request.path, request.extensions, /*skip_bad=*/is_folder);
  EvalData data;
  EvalDocument open;
  std::int64_t longest = 0;
  const auto full = [&] {
    return request.max_documents > 0 &&
           static_cast<std::int64_t>(data.documents.size()) >= request.max_documents;
  };
  for (const Document& source : sources) {
    if (full()) break;
    std::vector<std::int32_t> ids = source.input_ids;
    if (ids.empty()) {
      SEER_CHECK(tokenizer != nullptr, "{}: text needs the model's tokenizer.json; give `input_ids`",
                 source.name);
      ids = tokenizer->encode(source.text, /*add_special_tokens=*/false);
    }
    if (open.ids.empty()) open.name = source.name;
    open.ids.insert(open.ids.end(), ids.begin(), ids.end());
    const auto size = static_cast<std::int64_t>(open.ids.size());
    longest = std::max(longest, size);
    if (size >= request.min_tokens) {
      data.documents.push_back(std::exchange(open, {}));
    } else if (!joined) {
      ++data.left_out;
      open = {};
    }
  }
  if (!open.ids.empty() && !full()) ++data.left_out;
  SEER_CHECK(!data.documents.empty(),
             "{}: expected a document of at least {} tokens (--lengths), the longest has {}", request.path,
             request.min_tokens, longest);
  return data;
}

std::string_view PplRow::rule_name() const {
  return setting.is_baseline() && setting.sparsity.rule == Rule::kAdaptive ? name_of(Rule::kNzRatio)
                                                                           : setting.rule_name();
}

double PplRow::ppl() const {
  std::vector<double> losses;
  for (const PplSample& sample : samples) losses.push_back(sample.nll);
  return perplexity_of(losses);
}

double PplRow::density() const {
  const double causal = mean_of(samples, &PplSample::causal_blocks);
  return causal == 0 ? 1.0 : mean_of(samples, &PplSample::selected_blocks) / causal;
}

double PplRow::prefill_seconds() const { return mean_of(samples, &PplSample::prefill_seconds); }
double PplRow::select_seconds() const { return mean_of(samples, &PplSample::select_seconds); }
double PplRow::attention_seconds() const { return mean_of(samples, &PplSample::attention_seconds); }

void evaluate_perplexity(Transformer& model, const Gate* gate, std::span<const EvalDocument> documents,
                         const PplRequest& request, SampleLog* log, bool show_progress,
                         const std::function<void(std::vector<PplRow>)>& on_length) {
  const std::vector<std::unique_ptr<Selector>> selectors = make_selectors(model, gate, request);
  std::vector<std::vector<Task>> tasks;
  for (const std::int64_t length : request.lengths) tasks.push_back(make_tasks(documents, length, request));
  const auto find = [&](const std::string& key) { return log != nullptr ? log->find(key) : nullptr; };

  double total_cost = 0, done_cost = 0;
  std::int64_t samples = 0, found = 0;
  const Task* first_missing = nullptr;
  for (const std::vector<Task>& of_length : tasks) {
    for (const Task& task : of_length) {
      for (const EvalSetting& setting : request.settings) {
        const double cost = prefill_cost(model.config(), token_count(task), setting);
        total_cost += cost;
        ++samples;
        if (find(sample_key(task, setting, request)) != nullptr) {
          done_cost += cost;
          ++found;
        } else if (first_missing == nullptr) {
          first_missing = &task;
        }
      }
    }
  }
  Progress progress("eval ppl", total_cost, show_progress);
  if (found > 0)
    progress.message(fmt::format("{}: {} of {} samples are there already", log->path(), found, samples));
  if (first_missing != nullptr) warm_up(model, first_missing->tokens, selectors);
  progress.skip(done_cost);

  for (std::size_t l = 0; l < tasks.size(); ++l) {
    std::vector<PplRow> rows;
    for (const EvalSetting& setting : request.settings)
      rows.push_back({.length = request.lengths[l], .setting = setting});
    for (const Task& task : tasks[l]) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::string key = sample_key(task, rows[i].setting, request);
        if (const std::string* known = find(key)) {
          rows[i].samples.push_back(sample_from_json(*known, log->path()));
          continue;
        }
        const std::string note =
            fmt::format("{} tokens, {} {:.3g}, {}", rows[i].length, name_of(rows[i].setting.selector),
                        rows[i].setting.sparsity.value, task.document->name);
        const double cost = prefill_cost(model.config(), token_count(task), rows[i].setting);
        const PplSample sample = run_task(model, task, selectors[i].get(), [&](double share) {
          progress.update(done_cost + cost * share, note);
        });
        done_cost += cost;
        if (log != nullptr) log->append(key, log_members(rows[i], task, sample, request.provenance));
        rows[i].samples.push_back(sample);
      }
    }
    on_length(std::move(rows));
  }
}

}  // namespace seer
