// vt: a chain of variables that all have one value, its links spread over noise.
#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "eval/ruler_generate.h"

namespace seer {
namespace {

constexpr std::int64_t kVariables = 5;
constexpr std::int64_t kNameLetters = 5;
constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Links lie at some of so many evenly spread places.
constexpr std::int64_t kPlaces = 40;

}  // namespace

RulerDraft draft_variables(std::uint64_t seed) {
  RulerRandom random(seed);
  DistinctTexts names(random, [](RulerRandom& r) { return r.word(kLetters, kNameLetters); });
  RulerDraft draft;
  for (std::int64_t i = 0; i < kVariables; ++i) draft.outputs.push_back(names.next());
  const std::string value = std::to_string(10000 + random.below(89999));
  std::vector<std::string> links{fmt::format("VAR {} = {}\n", draft.outputs[0], value)};
  for (std::size_t i = 1; i < draft.outputs.size(); ++i)
    links.push_back(fmt::format("VAR {} = VAR {}\n", draft.outputs[i], draft.outputs[i - 1]));
  std::vector<std::int64_t> places = random.sample(kPlaces, kVariables);
  std::sort(places.begin(), places.end());

  draft.input = [=](std::int64_t units) {
    std::string text = "Each variable below gets a number, or the value of another variable.\n";
    std::size_t next = 0;
    for (std::int64_t i = 0; i <= units; ++i) {
      for (; next < places.size() &&
             std::llround(static_cast<double>(places[next] * units) / (kPlaces - 1)) <= i;
           ++next)
        text += links[next];
      if (i < units) text += kRulerNoise;
    }
    return text +
           fmt::format(
               "Which variables have the value {0} in the text above? {1} variables have the value {0}, "
               "they are:",
               value, kVariables);
  };
  return draft;
}

}  // namespace seer
