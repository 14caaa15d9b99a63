#include "eval/run_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTasks[] = {"ppl", "ruler", "longbench"};
/// Set by the plan itself, or without sense in it.
constexpr const char* kReserved[] = {"results", "json", "gate", "score", "help", "quiet"};

/// A model with one of its gates.
struct Subject {
  std::string name;
  std::string model;  // empty: the embedded one
  std::string gate;   // empty: the model's own, if it has any
};

std::string flag_of(const std::string& key) {
  std::string flag = key;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

/// About how many tokens a text file or a folder of them has; 0 where there is none.
double tokens_in(const std::string& path) {
  constexpr double kBytesPerToken = 4;
  std::error_code error;
  if (fs::is_regular_file(path, error))
    return static_cast<double>(fs::file_size(path, error)) / kBytesPerToken;
  double tokens = 0;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error))
    if (entry->is_regular_file(error))
      tokens += static_cast<double>(entry->file_size(error)) / kBytesPerToken;
  return tokens;
}

double number_or(const Json& keys, const char* key, double otherwise) {
  return keys.contains(key) && keys[key].is_number() && keys[key] > 0 ? keys[key].get<double>() : otherwise;
}

double size_or(const Json& keys, const char* key, double otherwise) {
  return keys.contains(key) && keys[key].is_array() ? static_cast<double>(keys[key].size()) : otherwise;
}

/// Tokens of all prompts times settings, from what the flags say and their usual values. Good for an order
/// and a rough time; it decides nothing else.
double work_of(const std::string& task, const Json& keys) {
  double lengths = 0, longest = 0;
  if (keys.contains("lengths") && keys["lengths"].is_array()) {
    for (const Json& length : keys["lengths"]) {
      const double tokens = length.is_number() ? length.get<double>() : 0;
      lengths += tokens;
      longest = std::max(longest, tokens);
    }
  }
  const double data = keys.contains("data") && keys["data"].is_string() ? tokens_in(keys["data"]) : 0;
  const double settings =
      1 + (size_or(keys, "selectors", 2) - 1) * size_or(keys, "values", task == "ppl" ? 5 : 1);
  if (task == "ppl") {
    if (longest == 0) lengths = 14336, longest = 8192;
    const double documents = std::max(std::floor(data / longest), 1.0);
    return settings * lengths * std::min(documents, number_or(keys, "max_documents", documents));
  }
  if (task == "ruler")
    return settings * (lengths > 0 ? lengths : 4096) * number_or(keys, "samples", 25) *
           size_or(keys, "tasks", 13);
  const double samples = number_or(keys, "max_samples", 0) * size_or(keys, "tasks", 13);
  constexpr double kLongBenchTokens = 8000;
  return settings * (samples > 0 ? samples * kLongBenchTokens : data);
}

class Reader {
 public:
  Reader(const std::string& label, const KnowsFlag& knows) : label_(label), knows_(knows) {}

  EvalPlan read(const Json& config) const {
    SEER_CHECK(config.is_object(), "{}: expected a JSON object", label_);
    EvalPlan plan{.results = text(config, "", "results")};
    const Json& tasks = list(config, "", "tasks");
    for (const Json& task : tasks) check_task(task);
    for (const auto& [key, value] : config.items()) check_common_key(key, tasks);
    const std::vector<Subject> all = subjects(config);
    for (const Subject& subject : all) {
      const auto first = std::find_if(all.begin(), all.end(),
                                      [&](const Subject& other) { return other.model == subject.model; });
      for (std::size_t i = 0; i < tasks.size(); ++i) {
        plan.jobs.push_back(job(plan.results, subject, config, tasks, i));
        if (first->name != subject.name) plan.jobs.back().sibling = folder_of(plan.results, *first, tasks, i);
      }
    }
    std::stable_sort(plan.jobs.begin(), plan.jobs.end(),
                     [](const EvalJob& a, const EvalJob& b) { return a.work < b.work; });
    return plan;
  }

 private:
  const Json& list(const Json& object, const std::string& where, const char* key) const {
    const auto found = object.find(key);
    SEER_CHECK(found != object.end() && found->is_array() && !found->empty(),
               "{}: {}{}: expected a list of at least one entry, found {}", label_, where, key,
               found == object.end() ? "nothing" : found->dump());
    return *found;
  }

  std::string text(const Json& object, const std::string& where, const char* key) const {
    const auto found = object.find(key);
    SEER_CHECK(found != object.end() && found->is_string() && !found->get<std::string>().empty(),
               "{}: {}{}: expected a text, found {}", label_, where, key,
               found == object.end() ? "nothing" : found->dump());
    return found->get<std::string>();
  }
  std::string optional_text(const Json& object, const std::string& where, const char* key) const {
    return object.contains(key) ? text(object, where, key) : std::string();
  }

  void check_keys(const Json& object, const std::string& where,
                  std::initializer_list<const char*> known) const {
    SEER_CHECK(object.is_object(), "{}: {}: expected an object, found {}", label_, where, object.dump());
    for (const auto& [key, value] : object.items())
      SEER_CHECK(std::find(known.begin(), known.end(), key) != known.end(),
                 "{}: {}: unknown key {}; known are {}", label_, where, key, fmt::join(known, ", "));
  }

  bool is_flag(const std::string& task, const std::string& key) const {
    return std::find(std::begin(kReserved), std::end(kReserved), key) == std::end(kReserved) &&
           knows_(task, flag_of(key));
  }

  void check_task(const Json& task) const {
    SEER_CHECK(task.is_object(), "{}: tasks: expected objects, found {}", label_, task.dump());
    const std::string name = text(task, "tasks: ", "task");
    SEER_CHECK(std::find(std::begin(kTasks), std::end(kTasks), name) != std::end(kTasks),
               "{}: tasks: task: expected one of {}, found \"{}\"", label_, fmt::join(kTasks, ", "), name);
    for (const auto& [key, value] : task.items())
      SEER_CHECK(key == "task" || is_flag(name, key), "{}: task {}: unknown key {}; see seer eval {} --help",
                 label_, name, key, name);
  }

  /// Keys beside `results`, `models` and `tasks` hold for every task that has such a flag.
  void check_common_key(const std::string& key, const Json& tasks) const {
    if (key == "results" || key == "models" || key == "tasks") return;
    SEER_CHECK(std::any_of(tasks.begin(), tasks.end(),
                           [&](const Json& task) { return is_flag(task["task"].get<std::string>(), key); }),
               "{}: unknown key {}; none of the tasks has such a flag", label_, key);
  }

  std::vector<Subject> subjects(const Json& config) const {
    if (!config.contains("models")) return {{.name = "embedded"}};
    std::vector<Subject> subjects;
    for (const Json& model : list(config, "", "models")) {
      check_keys(model, "models", {"name", "model", "gates"});
      Subject base{.name = text(model, "models: ", "name"),
                   .model = optional_text(model, "models: ", "model")};
      if (!model.contains("gates")) {
        subjects.push_back(base);
        continue;
      }
      for (const Json& gate : list(model, "models: ", "gates")) {
        check_keys(gate, "gates", {"name", "gate"});
        subjects.push_back({.name = base.name + "-" + text(gate, "gates: ", "name"),
                            .model = base.model,
                            .gate = text(gate, "gates: ", "gate")});
      }
    }
    for (const Subject& subject : subjects) {
      SEER_CHECK(subject.name.find('/') == std::string::npos && subject.name.front() != '.',
                 "{}: name: expected the name of a folder, found \"{}\"", label_, subject.name);
      SEER_CHECK(std::count_if(subjects.begin(), subjects.end(),
                               [&](const Subject& other) { return other.name == subject.name; }) == 1,
                 "{}: name: expected each model and gate once, found \"{}\" again", label_, subject.name);
    }
    return subjects;
  }

  /// --flag=VALUE, lists joined by commas.
  std::string argument(const std::string& task, const std::string& key, const Json& value) const {
    const auto scalar = [&](const Json& item) {
      SEER_CHECK(item.is_string() || item.is_number() || item.is_boolean(),
                 "{}: task {}: {}: expected a text, a number, true, false or a list of these, found {}",
                 label_, task, key, item.dump());
      return item.is_string() ? item.get<std::string>() : item.dump();
    };
    std::string text;
    if (value.is_array()) {
      for (const Json& item : value) text += (text.empty() ? "" : ",") + scalar(item);
    } else {
      text = scalar(value);
    }
    return fmt::format("--{}={}", flag_of(key), text);
  }

  /// A task that stands in the list again (other data, say) gets a folder of its own.
  static std::string folder_of(const std::string& results, const Subject& subject, const Json& tasks,
                               std::size_t index) {
    const Json& name = tasks[index]["task"];
    const auto earlier = std::count_if(tasks.begin(), tasks.begin() + static_cast<std::ptrdiff_t>(index),
                                       [&](const Json& other) { return other["task"] == name; });
    const std::string folder =
        earlier == 0 ? subject.name
                     : fmt::format("{}-{}-{}", subject.name, name.get<std::string>(), earlier + 1);
    return (fs::path(results) / folder).string();
  }

  EvalJob job(const std::string& results, const Subject& subject, const Json& config, const Json& tasks,
              std::size_t index) const {
    const Json& task = tasks[index];
    const std::string name = task["task"].get<std::string>();
    Json keys = Json::object();
    for (const auto& [key, value] : config.items())
      if (key != "results" && key != "models" && key != "tasks" && is_flag(name, key)) keys[key] = value;
    for (const auto& [key, value] : task.items())
      if (key != "task") keys[key] = value;
    // Short lengths first, so that there is something to look at early.
    if (keys.contains("lengths") && keys["lengths"].is_array())
      std::sort(keys["lengths"].begin(), keys["lengths"].end());

    EvalJob job{.task = name, .title = fmt::format("{}, {}", name, subject.name)};
    job.folder = folder_of(results, subject, tasks, index);
    if (!subject.model.empty()) job.arguments.push_back(subject.model);
    if (!subject.gate.empty()) job.arguments.push_back("--gate=" + subject.gate);
    for (const auto& [key, value] : keys.items()) job.arguments.push_back(argument(name, key, value));
    job.arguments.push_back("--results=" + job.folder);
    job.work = work_of(name, keys);
    return job;
  }

  const std::string& label_;
  const KnowsFlag& knows_;
};

}  // namespace

EvalPlan parse_eval_plan(const std::string& json, const std::string& label, const KnowsFlag& knows) {
  Json config;
  try {
    config = Json::parse(json);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: no valid JSON: {}", label, error.what());
  }
  return Reader(label, knows).read(config);
}

}  // namespace seer
