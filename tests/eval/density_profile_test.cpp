#include "eval/density_profile.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/tensor_file.h"
#include "support/golden.h"

namespace seer {
namespace {

/// A line "tokens: density" of the harness' profile; nothing for any other line.
std::optional<DensityPoint> parse_profile_line(const std::string& line) {
  const char* at = line.c_str();
  char* end = nullptr;
  DensityPoint point{.tokens = std::strtod(at, &end)};
  const std::size_t colon = line.find_first_not_of(" \t\r", static_cast<std::size_t>(end - at));
  if (end == at || colon == line.npos || line[colon] != ':') return std::nullopt;
  at += colon + 1;
  point.density = std::strtod(at, &end);
  if (end == at || std::string(end).find_first_not_of(" \t\r") != std::string::npos) return std::nullopt;
  return point;
}

TEST(DensityProfileGolden, GroupsOfTheHarness) {
  const auto path = test::golden_path("eval/density_profile.txt");
  if (path.empty()) GTEST_SKIP() << "no golden eval/density_profile.txt";
  std::ifstream file(path);
  std::vector<DensityPoint> points;
  for (std::string line; std::getline(file, line);)
    if (const auto point = parse_profile_line(line)) points.push_back(*point);
  const auto expected =
      nlohmann::json::parse(read_file(test::golden_path("eval/density_profile.json").string()));
  for (const auto& [name, groups] :
       {std::pair{"longbench", longbench_length_groups()}, std::pair{"ruler", ruler_length_groups()}}) {
    const std::vector<double> means = mean_densities(points, groups);
    ASSERT_EQ(groups.size(), expected[name].size());
    for (std::size_t g = 0; g < groups.size(); ++g)
      EXPECT_EQ(means[g], expected[name][std::string(groups[g].name)].get<double>()) << groups[g].name;
  }
}

TEST(DensityProfile, AnEmptyGroupIsZero) {
  const std::vector<DensityPoint> points{{3999, 0.5}, {3999.5, 0.25}, {8000, 1}};
  EXPECT_EQ(mean_densities(points, longbench_length_groups()), (std::vector<double>{0.375, 0, 1}));
}

}  // namespace
}  // namespace seer
