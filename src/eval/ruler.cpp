#include "eval/ruler.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "eval/python_text.h"
#include "io/message.h"
#include "io/utf8.h"

namespace seer {
namespace {

constexpr std::array<RulerTask, 13> kTasks{{{"niah_single_1", 128, RulerMatch::kAll},
                                            {"niah_single_2", 128, RulerMatch::kAll},
                                            {"niah_single_3", 128, RulerMatch::kAll},
                                            {"niah_multikey_1", 128, RulerMatch::kAll},
                                            {"niah_multikey_2", 128, RulerMatch::kAll},
                                            {"niah_multikey_3", 128, RulerMatch::kAll},
                                            {"niah_multivalue", 128, RulerMatch::kAll},
                                            {"niah_multiquery", 128, RulerMatch::kAll},
                                            {"vt", 30, RulerMatch::kAll},
                                            {"cwe", 120, RulerMatch::kAll},
                                            {"fwe", 50, RulerMatch::kAll},
                                            {"qa_1", 32, RulerMatch::kPart},
                                            {"qa_2", 32, RulerMatch::kPart}}};

/// Text without Python's white space at both ends.
std::string_view strip(std::string_view text) {
  std::size_t begin = text.size(), end = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = utf8_step(text.substr(at)).length;
    if (!is_python_space(first_character(text.substr(at)))) {
      begin = std::min(begin, at);
      end = at + size;
    }
    at += size;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace

std::string_view name_of(RulerMatch match) {
  return match == RulerMatch::kAll ? "string_match_all" : "string_match_part";
}

std::span<const RulerTask> ruler_tasks() { return kTasks; }

const RulerTask& ruler_task(std::string_view name) {
  std::string names;
  for (const RulerTask& task : kTasks) {
    if (task.name == name) return task;
    names += (names.empty() ? "" : ", ") + std::string(task.name);
  }
  fail("RULER: expected a task of {}, found {}", names, in_quotes(name));
}

std::string postprocess_ruler(std::string_view prediction) {
  std::string text(strip(prediction));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20) c = '\n';
  return std::string(strip(text));
}

double match_ruler(RulerMatch match, std::string_view prediction, std::span<const std::string> references) {
  SEER_CHECK(!references.empty(), "RULER: expected references, found none");
  const std::u32string text = python_lower(to_utf32(prediction));
  const auto contained =
      std::count_if(references.begin(), references.end(), [&](const std::string& reference) {
        return text.find(python_lower(to_utf32(reference))) != std::u32string::npos;
      });
  if (match == RulerMatch::kPart) return contained > 0 ? 1 : 0;
  return static_cast<double>(contained) / static_cast<double>(references.size());
}

double ruler_percent(std::span<const double> scores) {
  double sum = 0;
  for (const double score : scores) sum += score;
  return python_round(sum / static_cast<double>(scores.size()) * 100);
}

}  // namespace seer
