#include "eval/ruler_generate.h"

#include <algorithm>

#include "core/check.h"

namespace seer {
namespace {

RulerDraft draft(const RulerTask& task, std::uint64_t seed, std::int64_t length,
                 const RulerHaystack& haystack) {
  if (task.name.starts_with("niah")) return draft_needles(task, seed, haystack);
  if (task.name == "vt") return draft_variables(seed);
  if (task.name == "cwe") return draft_common_words(seed, length);
  if (task.name == "fwe") return draft_frequent_words(seed, length);
  return draft_questions(task, seed);
}

}  // namespace

std::int64_t largest_fitting(std::int64_t smallest, std::int64_t limit,
                             const std::function<std::int64_t(std::int64_t units)>& tokens_of,
                             const std::string& label) {
  std::int64_t fits = smallest, fits_tokens = tokens_of(smallest);
  SEER_CHECK(fits_tokens <= limit,
             "{}: the smallest sample has {} tokens, the length leaves {}; ask for more", label, fits_tokens,
             limit);
  // Doubled until it is too much.
  std::int64_t over = smallest, over_tokens = fits_tokens;
  for (std::int64_t step = 32; over_tokens <= limit; step *= 2) {
    fits = over;
    fits_tokens = over_tokens;
    over = smallest + step;
    over_tokens = tokens_of(over);
  }
  // Tokens grow nearly in proportion to units, so interpolation is close at once; halving makes it sure.
  for (int round = 1; over - fits > 1; ++round) {
    const std::int64_t guess = (limit - fits_tokens) * (over - fits) / (over_tokens - fits_tokens);
    const std::int64_t step =
        round % 4 == 0 ? (over - fits) / 2 : std::clamp<std::int64_t>(guess, 1, over - fits - 1);
    const std::int64_t tokens = tokens_of(fits + step);
    if (tokens <= limit) {
      fits += step;
      fits_tokens = tokens;
    } else {
      over = fits + step;
      over_tokens = tokens;
    }
  }
  return fits;
}

RulerSample generate_ruler_sample(const RulerTask& task, std::int64_t length, std::int64_t index,
                                  std::uint64_t seed, const RulerHaystack& haystack,
                                  const Tokenizer& tokenizer) {
  const std::uint64_t own_seed = Fingerprint()
                                     .add(seed)
                                     .add(task.name)
                                     .add(static_cast<std::uint64_t>(length))
                                     .add(static_cast<std::uint64_t>(index))
                                     .value();
  const RulerDraft made = draft(task, own_seed, length, haystack);
  const auto tokens_of = [&](std::int64_t units) {
    return static_cast<std::int64_t>(tokenizer.encode(made.input(units)).size());
  };
  RulerSample sample{.task = &task, .index = index, .outputs = made.outputs, .depth = made.depth};
  sample.source = fmt::format("{} of {} tokens, sample {}", task.name, length, index);
  const std::int64_t units =
      largest_fitting(made.smallest, length - task.max_new_tokens, tokens_of, sample.source);
  sample.input = made.input(units);
  sample.length = tokens_of(units) + task.max_new_tokens;
  return sample;
}

}  // namespace seer
