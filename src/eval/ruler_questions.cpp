// qa_1 and qa_2: a question about one document of many, or about two that must be joined. People and towns
// are made up, so nothing can be known beforehand.
#include <algorithm>

#include "core/check.h"
#include "eval/ruler_generate.h"

namespace seer {
namespace {

std::string random_person(RulerRandom& random) {
  std::string person = random_name(random);
  return person.append(" ").append(random_name(random));
}

/// A town that a document describes.
struct Town {
  std::string name, river, founder, mayor;
  std::int64_t year = 0, bridges = 0;
  std::string_view trade;
};

/// Towns, none of whose names is the name of something else.
class Region {
 public:
  explicit Region(std::uint64_t seed)
      : random_(seed), names_(random_, random_name), people_(random_, random_person) {}

  Town town() {
    Town town{
        .name = names_.next(), .river = names_.next(), .founder = people_.next(), .mayor = people_.next()};
    town.year = 1100 + random_.below(800);
    town.bridges = 2 + random_.below(30);
    town.trade = random_.pick(ruler_nouns());
    return town;
  }

 private:
  RulerRandom random_;
  DistinctTexts<std::string (*)(RulerRandom&)> names_, people_;
};

std::string about_town(const Town& town) {
  return fmt::format(
      "{} is a town on the river {}, which {} bridges cross. It was founded in {} by {} and is known for its "
      "{} "
      "market. The mayor of {} is {}.",
      town.name, town.river, town.bridges, town.year, town.founder, town.trade, town.name, town.mayor);
}

/// Where a town's mayor comes from: another town, which no question is about.
std::string about_mayor(const Town& town, const Town& home) {
  return fmt::format("{} was born near the river {} and came to politics after years in the {} trade.",
                     town.mayor, home.river, home.trade);
}

}  // namespace

RulerDraft draft_questions(const RulerTask& task, std::uint64_t seed) {
  const bool two_steps = task.name == "qa_2";
  SEER_CHECK(two_steps || task.name == "qa_1", "RULER: {} asks no question about documents", task.name);
  Region region(seed);
  const Town asked = region.town(), home = region.town();

  RulerDraft draft;
  const std::string answer = two_steps ? home.river : asked.founder;
  draft.outputs = {answer};
  const std::string question =
      two_steps
          ? fmt::format("Near which river was the mayor of {} born? The mayor of {} was born near the river",
                        asked.name, asked.name)
          : fmt::format("Who founded {}? The town of {} was founded by", asked.name, asked.name);
  draft.input = [=](std::int64_t units) {
    std::vector<std::string> documents{about_town(asked)};
    if (two_steps) documents.push_back(about_mayor(asked, home));
    Region others(seed);
    others.town();
    others.town();
    const auto add = [&](std::string document) {
      if (document.find(answer) == std::string::npos) documents.push_back(std::move(document));
    };
    while (static_cast<std::int64_t>(documents.size()) < units + (two_steps ? 2 : 1)) {
      const Town town = others.town();
      add(about_town(town));
      if (two_steps) add(about_mayor(town, others.town()));
    }
    documents.resize(static_cast<std::size_t>(units + (two_steps ? 2 : 1)));
    RulerRandom(seed + 2).shuffle(documents);
    std::string text = "Answer the question at the end by the documents below.\n\n";
    for (std::size_t i = 0; i < documents.size(); ++i)
      text += fmt::format("Document {}:\n{}\n\n", i + 1, documents[i]);
    return text + question;
  };
  return draft;
}

}  // namespace seer
