#include "eval/density_profile.h"

#include <array>
#include <limits>

namespace seer {
namespace {

constexpr double kRest = std::numeric_limits<double>::infinity();

}  // namespace

std::span<const LengthGroup> longbench_length_groups() {
  static constexpr std::array<LengthGroup, 3> kGroups{{{"0-4k", 4000}, {"4k-8k", 8000}, {"8k+", kRest}}};
  return kGroups;
}

std::span<const LengthGroup> ruler_length_groups() {
  static constexpr std::array<LengthGroup, 6> kGroups{{{"0-4k", 4000},
                                                       {"4-8k", 8000},
                                                       {"8-16k", 16000},
                                                       {"16-32k", 32000},
                                                       {"32-64k", 64000},
                                                       {"64-128k", kRest}}};
  return kGroups;
}

std::vector<double> mean_densities(std::span<const DensityPoint> points,
                                   std::span<const LengthGroup> groups) {
  std::vector<double> means(groups.size(), 0);
  std::vector<std::int64_t> counts(groups.size(), 0);
  for (const DensityPoint& point : points) {
    std::size_t group = 0;
    while (group + 1 < groups.size() && !(point.tokens < groups[group].below)) ++group;
    means[group] += point.density;
    ++counts[group];
  }
  for (std::size_t g = 0; g < groups.size(); ++g)
    if (counts[g] > 0) means[g] /= static_cast<double>(counts[g]);
  return means;
}

}  // namespace seer
