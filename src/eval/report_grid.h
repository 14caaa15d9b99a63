// Lookups in rows by length and setting, shared by the sections of a report.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "eval/report.h"

namespace seer {

/// Rows' lengths in rising order.
template <class Row>
std::vector<std::int64_t> lengths_of(const std::vector<Row>& rows) {
  std::vector<std::int64_t> lengths;
  for (const Row& row : rows) lengths.push_back(row.length);
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

/// Rows' settings in their order, dense first.
template <class Row>
std::vector<ReportSetting> settings_of(const std::vector<Row>& rows) {
  std::vector<ReportSetting> settings;
  for (const Row& row : rows)
    if (std::none_of(settings.begin(), settings.end(),
                     [&](const ReportSetting& known) { return known.label() == row.label(); }))
      settings.push_back(row);
  std::stable_partition(settings.begin(), settings.end(),
                        [](const ReportSetting& setting) { return setting.is_dense(); });
  return settings;
}

/// Smallest and largest of what was seen.
struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

/// The selectors that have a curve in figures, in the order of legends.
inline constexpr const char* kCurveSelectors[] = {"gate", "oracle", "local", "random"};

}  // namespace seer
