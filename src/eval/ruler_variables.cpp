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

struct Chain {
  std::vector<std::string> names;
  std::string value;
};

Chain random_chain(RulerRandom& random) {
  DistinctTexts names(random, [](RulerRandom& r) { return r.word(kLetters, kNameLetters); });
  Chain chain;
  for (std::int64_t i = 0; i < kVariables; ++i) chain.names.push_back(names.next());
  chain.value = std::to_string(10000 + random.below(89999));
  return chain;
}

std::string link(const Chain& chain, std::size_t i) {
  return fmt::format("{} = {}\n", chain.names[i], i == 0 ? chain.value : chain.names[i - 1]);
}

std::string question(const Chain& chain) {
  return fmt::format("Which {} variables have the value {}? They are:", kVariables, chain.value);
}

}  // namespace

RulerDraft draft_variables(std::uint64_t seed) {
  RulerRandom random(seed);
  const Chain example = random_chain(random), chain = random_chain(random);
  std::vector<std::int64_t> places = random.sample(kPlaces, kVariables);
  std::sort(places.begin(), places.end());

  // A short chain with its answer shows what is asked.
  std::string intro = "Each variable below gets a number, or the value of another variable.\n";
  for (std::size_t i = 0; i < example.names.size(); ++i) intro += kRulerNoise + link(example, i);
  intro += question(example);
  for (const std::string& name : example.names) intro += " " + name;
  intro += "\n\n";

  RulerDraft draft;
  draft.outputs = chain.names;
  draft.input = [=](std::int64_t units) {
    std::string text = intro;
    std::size_t next = 0;
    for (std::int64_t i = 0; i <= units; ++i) {
      for (; next < places.size() &&
             std::llround(static_cast<double>(places[next] * units) / (kPlaces - 1)) <= i;
           ++next)
        text += link(chain, next);
      if (i < units) text += kRulerNoise;
    }
    return text + question(chain);
  };
  return draft;
}

}  // namespace seer
