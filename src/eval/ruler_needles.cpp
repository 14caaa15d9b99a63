// niah_*: facts of one line each, hidden in a haystack, and a question for one or several of them.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/check.h"
#include "eval/ruler_generate.h"

namespace seer {
namespace {

enum class Haystack { kNoise, kText, kNeedles };

/// What a niah task hides, and where.
struct NeedleTask {
  std::string_view name;
  Haystack haystack = Haystack::kText;
  std::int64_t keys = 1, values = 1, queries = 1;
  bool uuid_keys = false, uuid_values = false;
};

constexpr std::array<NeedleTask, 8> kTasks{
    {{.name = "niah_single_1", .haystack = Haystack::kNoise},
     {.name = "niah_single_2"},
     {.name = "niah_single_3", .uuid_values = true},
     {.name = "niah_multikey_1", .keys = 4},
     {.name = "niah_multikey_2", .haystack = Haystack::kNeedles},
     {.name = "niah_multikey_3", .haystack = Haystack::kNeedles, .uuid_keys = true, .uuid_values = true},
     {.name = "niah_multivalue", .values = 4},
     {.name = "niah_multiquery", .keys = 4, .queries = 4}}};

/// Needles lie at some of so many evenly spread depths.
constexpr std::int64_t kDepths = 40;

struct Needle {
  std::string key, value;
  double depth = 0;  // percent
};

double depth_of(std::int64_t point) { return std::round(100.0 * static_cast<double>(point) / (kDepths - 1)); }

/// "a", "a and b", "a, b and c"
std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 < words.size() ? ", " : " and ") + words[i];
  return text;
}

}  // namespace

RulerDraft draft_needles(const RulerTask& task, std::uint64_t seed, const RulerHaystack& haystack) {
  const auto found = std::find_if(kTasks.begin(), kTasks.end(),
                                  [&](const NeedleTask& known) { return known.name == task.name; });
  SEER_CHECK(found != kTasks.end(), "RULER: {} hides no needles", task.name);
  const NeedleTask kind = *found;

  RulerRandom random(seed);
  DistinctTexts keys(random, kind.uuid_keys ? random_uuid : random_key);
  DistinctTexts values(random, kind.uuid_values ? random_uuid : random_number);
  std::vector<Needle> needles;
  const std::vector<std::int64_t> points = random.sample(kDepths, kind.keys * kind.values);
  for (std::int64_t k = 0; k < kind.keys; ++k) {
    const std::string key = keys.next();
    for (std::int64_t v = 0; v < kind.values; ++v)
      needles.push_back({key, values.next(), depth_of(points[needles.size()])});
  }

  RulerDraft draft;
  std::vector<std::string> asked;
  for (std::int64_t q = 0; q < kind.queries; ++q)
    asked.push_back(needles[static_cast<std::size_t>(q * kind.values)].key);
  for (std::int64_t a = 0; a < kind.queries * kind.values; ++a)
    draft.outputs.push_back(needles[static_cast<std::size_t>(a)].value);
  if (draft.outputs.size() == 1) draft.depth = needles.front().depth;

  const std::string noun = kind.uuid_values ? "code" : "number";
  const bool several = draft.outputs.size() > 1;
  const std::string intro =
      fmt::format("Each special {} in the text below belongs to a key. {} asked for at the end.\n", noun,
                  several ? "Some of them are" : "One of them is");
  const std::string subject = fmt::format("special {}{} for {}", noun, several ? "s" : "", listed(asked));
  const std::string question =
      fmt::format("What {} the {} in the text above? The {}:", several ? "are" : "is", subject, subject);
  const auto line_of = [noun](const std::string& key, const std::string& value) {
    return fmt::format("A special {} for {}: {}.\n", noun, key, value);
  };

  draft.input = [=, &haystack](std::int64_t units) {
    std::vector<std::string> hay;
    if (kind.haystack == Haystack::kText) {
      hay = haystack.units(seed, units);
    } else if (kind.haystack == Haystack::kNoise) {
      hay.assign(static_cast<std::size_t>(units), kRulerNoise);
    } else {
      RulerRandom others(seed + 1);
      DistinctTexts other_keys(others, kind.uuid_keys ? random_uuid : random_key);
      DistinctTexts other_values(others, kind.uuid_values ? random_uuid : random_number);
      while (static_cast<std::int64_t>(hay.size()) < units) {
        const std::string key = other_keys.next(), value = other_values.next();
        if (key != needles.front().key && value != needles.front().value) hay.push_back(line_of(key, value));
      }
    }
    // Needles by the unit that they stand before.
    std::vector<std::pair<std::int64_t, const Needle*>> places;
    for (const Needle& needle : needles)
      places.emplace_back(std::llround(needle.depth / 100 * static_cast<double>(units)), &needle);
    std::stable_sort(places.begin(), places.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::string text = intro;
    auto place = places.begin();
    for (std::int64_t i = 0; i <= units; ++i) {
      for (; place != places.end() && place->first == i; ++place) {
        if (text.back() != '\n') text += '\n';
        text += line_of(place->second->key, place->second->value);
      }
      if (i < units) text += hay[static_cast<std::size_t>(i)];
    }
    if (text.back() != '\n') text += '\n';
    return text + question;
  };
  return draft;
}

}  // namespace seer
