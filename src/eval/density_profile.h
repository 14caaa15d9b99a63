// Density by length of prompt.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace seer {

/// Prompts of fewer than `below` tokens that no earlier group has.
struct LengthGroup {
  std::string_view name;
  double below = 0;
};

/// The groups of the published harness for LongBench and for RULER, shortest first; the last takes all the
/// rest.
std::span<const LengthGroup> longbench_length_groups();
std::span<const LengthGroup> ruler_length_groups();

struct DensityPoint {
  double tokens = 0;
  double density = 0;
};

/// The mean of each group's densities, every point weighing the same; 0 for an empty group.
std::vector<double> mean_densities(std::span<const DensityPoint> points, std::span<const LengthGroup> groups);

}  // namespace seer
