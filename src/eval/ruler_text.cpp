#include "eval/ruler_text.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "io/documents.h"

namespace seer {
namespace {

constexpr std::string_view kAdjectives[] = {
    "amber",   "ample",  "ancient", "arctic",  "autumn",  "awake",   "azure",   "barren", "basic",
    "bitter",  "blunt",  "bold",    "brave",   "brief",   "bright",  "brisk",   "broken", "bronze",
    "calm",    "candid", "casual",  "certain", "cheap",   "civil",   "clean",   "clever", "coarse",
    "cosmic",  "cozy",   "crimson", "crisp",   "curious", "curved",  "damp",    "dapper", "daring",
    "deep",    "dense",  "dizzy",   "docile",  "double",  "dreamy",  "dusty",   "eager",  "early",
    "earnest", "elder",  "elegant", "empty",   "exact",   "faded",   "faint",   "fancy",  "fertile",
    "festive", "final",  "fixed",   "flat",    "fluent",  "formal",  "fragile", "frank",  "frosty",
    "frugal",  "gentle", "giant",   "glad",    "global",  "golden",  "grand",   "grave",  "greedy",
    "handy",   "hasty",  "hazel",   "heavy",   "hidden",  "hollow",  "humble",  "hungry", "idle",
    "jolly",   "keen",   "kind",    "lavish",  "level",   "light",   "liquid",  "little", "local",
    "lofty",   "loud",   "loyal",   "lucid",   "lunar",   "mellow",  "merry",   "mild",   "minor",
    "misty",   "modern", "modest",  "muted",   "narrow",  "neat",    "nimble",  "noble",  "novel",
    "oblong",  "odd",    "opal",    "orange",  "pale",    "patient", "plain",   "polar",  "polite",
    "proud",   "purple", "quaint",  "quick",   "quiet",   "rapid",   "rare",    "ready",  "remote",
    "rigid",   "ripe",   "robust",  "rough",   "royal",   "ruby",    "rural",   "rustic", "salty",
    "scarlet", "secret", "serene",  "shy",     "silent",  "silver",  "simple",  "sleepy", "slim",
    "smooth",  "sober",  "soft",    "solar",   "solid",   "sour",    "spare",   "spicy",  "stable",
    "steep",   "stern",  "still",   "strict",  "sturdy",  "subtle",  "sunny",   "sweet",  "swift",
    "tall",    "tame",   "tender",  "thin",    "tidy",    "timid",   "tiny",    "tough",  "tranquil",
    "upper",   "urban",  "usual",   "vague",   "vast",    "velvet",  "violet",  "vivid",  "warm",
    "wary",    "weary",  "wide",    "wild",    "wise",    "witty",   "wooden",  "woolen", "young",
    "zesty"};

constexpr std::string_view kNouns[] = {
    "acorn",    "almond",  "anchor",   "antler",  "apron",    "atlas",   "badger",  "bagel",   "balcony",
    "bamboo",   "banner",  "barrel",   "basket",  "beacon",   "beaver",  "bell",    "bicycle", "blanket",
    "bottle",   "boulder", "bracelet", "branch",  "bridge",   "broom",   "bucket",  "buffalo", "button",
    "cabin",    "cactus",  "camera",   "candle",  "canoe",    "canyon",  "carpet",  "castle",  "cellar",
    "chapel",   "cherry",  "chisel",   "cider",   "circus",   "clock",   "clover",  "cobra",   "coffee",
    "comet",    "compass", "copper",   "coral",   "cottage",  "cradle",  "crater",  "cricket", "crystal",
    "curtain",  "cushion", "daisy",    "desert",  "dolphin",  "domino",  "donkey",  "dragon",  "drum",
    "eagle",    "easel",   "elbow",    "ember",   "engine",   "falcon",  "feather", "fence",   "fiddle",
    "finch",    "flute",   "forest",   "fossil",  "fountain", "galaxy",  "garden",  "garlic",  "geyser",
    "ginger",   "glacier", "glove",    "goblet",  "goose",    "granite", "grove",   "guitar",  "hammer",
    "harbor",   "harvest", "hawk",     "helmet",  "hermit",   "heron",   "hinge",   "honey",   "island",
    "ivory",    "jacket",  "jaguar",   "jasmine", "jungle",   "kayak",   "kernel",  "kettle",  "kitten",
    "ladder",   "lagoon",  "lantern",  "lemon",   "lentil",   "library", "lizard",  "locket",  "lotus",
    "magnet",   "mango",   "maple",    "marble",  "meadow",   "melon",   "mirror",  "mitten",  "monsoon",
    "mosaic",   "muffin",  "museum",   "mustard", "napkin",   "needle",  "nickel",  "oasis",   "octopus",
    "olive",    "onion",   "orchard",  "otter",   "oyster",   "paddle",  "palace",  "panda",   "parcel",
    "parrot",   "pebble",  "pencil",   "pepper",  "piano",    "pigeon",  "pillow",  "pocket",  "pollen",
    "poppy",    "prairie", "puddle",   "pumpkin", "pyramid",  "quarry",  "quilt",   "rabbit",  "raft",
    "raven",    "ribbon",  "river",    "rocket",  "saddle",   "salmon",  "sandal",  "satchel", "saucer",
    "sculptor", "shovel",  "sketch",   "sparrow", "spider",   "spoon",   "statue",  "summit",  "teapot",
    "temple",   "thicket", "thimble",  "thunder", "ticket",   "tiger",   "timber",  "toast",   "tractor",
    "trumpet",  "tulip",   "tunnel",   "turtle",  "umbrella", "valley",  "vessel",  "village", "violin",
    "volcano",  "voyage",  "wagon",    "walnut",  "walrus",   "whale",   "wharf",   "whistle", "willow",
    "window",   "winter",  "yacht",    "zebra",   "zipper"};

constexpr std::string_view kVerbs[] = {"carries", "covers", "crosses", "follows", "guards",
                                       "leaves",  "lifts",  "meets",   "mends",   "paints",
                                       "passes",  "shades", "turns",   "watches"};
constexpr std::string_view kPlaces[] = {"above", "behind", "below", "beside", "inside", "near", "under"};
constexpr std::string_view kSyllables[] = {"ba",  "bel", "cor", "dan", "del", "far", "fen", "gor",  "hal",
                                           "jun", "kel", "lin", "mar", "mel", "nor", "pel", "quin", "ros",
                                           "sel", "tam", "tor", "ul",  "van", "wen", "yor", "zan"};

/// One sentence of a haystack that is made up. All is drawn beforehand: the order in which a call's arguments
/// are evaluated differs between compilers.
std::string random_sentence(RulerRandom& random) {
  const std::string_view a = random.pick<std::string_view>(kAdjectives),
                         noun = random.pick<std::string_view>(kNouns),
                         b = random.pick<std::string_view>(kAdjectives),
                         other = random.pick<std::string_view>(kNouns),
                         verb = random.pick<std::string_view>(kVerbs),
                         place = random.pick<std::string_view>(kPlaces);
  switch (const std::int64_t hour = 1 + random.below(6); random.below(5)) {
    case 0:
      return fmt::format("The {} {} {} the {} {}.", a, noun, verb, b, other);
    case 1:
      return fmt::format("Nobody put the {} {} {} every {}.", a, noun, place, other);
    case 2:
      return fmt::format("Whoever {} the {} {} has never seen the {} {}.", verb, a, noun, b, other);
    case 3:
      return fmt::format("By {} in the afternoon the {} {} {} the {}.", hour, a, noun, verb, other);
    default:
      return fmt::format("One {} is {}, another {} is {}.", noun, a, other, b);
  }
}

}  // namespace

std::span<const std::string_view> ruler_adjectives() { return kAdjectives; }
std::span<const std::string_view> ruler_nouns() { return kNouns; }

std::string random_key(RulerRandom& random) {
  std::string key(random.pick<std::string_view>(kAdjectives));
  return key.append("-").append(random.pick<std::string_view>(kNouns));
}

std::string random_number(RulerRandom& random) { return std::to_string(1000000 + random.below(9000000)); }

std::string random_uuid(RulerRandom& random) {
  const std::string digits = random.word("0123456789abcdef", 32);
  return fmt::format("{}-{}-{}-{}-{}", digits.substr(0, 8), digits.substr(8, 4), digits.substr(12, 4),
                     digits.substr(16, 4), digits.substr(20));
}

std::string random_name(RulerRandom& random) {
  std::string name;
  for (std::int64_t left = 2 + random.below(3); left > 0; --left)
    name += random.pick<std::string_view>(kSyllables);
  name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

std::vector<std::string> split_units(std::string_view text) {
  constexpr std::size_t kLongLine = 160;
  std::vector<std::string> units;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, std::min(text.find('\n'), text.size() - 1) + 1);
    std::size_t end = line.size();
    if (line.size() > kLongLine) {
      for (std::size_t i = 1; i < line.size(); ++i) {
        if (line[i] == ' ' && (line[i - 1] == '.' || line[i - 1] == '!' || line[i - 1] == '?')) {
          end = i + 1;
          break;
        }
      }
    }
    units.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return units;
}

RulerHaystack::RulerHaystack(const std::string& path) {
  for (const Document& document : read_documents(path, {}, /*skip_bad=*/true)) {
    SEER_CHECK(document.input_ids.empty(), "{}: expected text, found input_ids", document.name);
    const std::vector<std::string> units = split_units(document.text);
    units_.insert(units_.end(), units.begin(), units.end());
  }
  SEER_CHECK(!units_.empty(), "{}: expected text to hide needles in, found none", path);
}

std::vector<std::string> RulerHaystack::units(std::uint64_t seed, std::int64_t count) const {
  RulerRandom random(seed);
  std::vector<std::string> units;
  if (units_.empty()) {
    for (std::int64_t i = 0; i < count; ++i) units.push_back(random_sentence(random) + "\n");
    return units;
  }
  const auto size = static_cast<std::int64_t>(units_.size());
  const std::int64_t first = random.below(size);
  for (std::int64_t i = 0; i < count; ++i)
    units.push_back(units_[static_cast<std::size_t>((first + i) % size)]);
  return units;
}

}  // namespace seer
