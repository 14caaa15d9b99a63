// Speed of the GPU attention kernels against the dense ones of the same card, beside the paper's curve.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "eval/paper_results.h"
#include "eval/report_grid.h"
#include "eval/report_sections.h"

namespace seer {
namespace {

using Records = std::vector<KernelRecord>;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// One measured point: median over records of one kernel, length, mask and density (to four decimals).
struct Point {
  std::int64_t length = 0;
  std::string mask;
  double density = 0;
  double ms = 0;
};

std::vector<Point> points_of(const Records& records, const std::string& peer) {
  std::vector<Point> points;
  std::vector<std::vector<double>> times;
  for (const KernelRecord& record : records) {
    if (record.op != "prefill" || record.peer != peer) continue;
    const auto same = std::find_if(points.begin(), points.end(), [&](const Point& point) {
      return point.length == record.length && point.mask == record.mask &&
             std::abs(point.density - record.density) < 5e-5;
    });
    const auto index = static_cast<std::size_t>(same - points.begin());
    if (same == points.end()) {
      points.push_back({record.length, record.mask, record.density});
      times.emplace_back();
    }
    times[index].push_back(record.ms);
  }
  for (std::size_t i = 0; i < points.size(); ++i) points[i].ms = median(times[i]);
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
    return std::tie(a.length, a.mask, b.density) < std::tie(b.length, b.mask, a.density);
  });
  return points;
}

/// A peer's dense time at a length; 0 where it was not measured.
double dense_ms(const std::vector<Point>& points, std::int64_t length) {
  for (const Point& point : points)
    if (point.length == length && point.density == 1) return point.ms;
  return 0;
}

ChartSeries speed_up(const std::vector<Point>& own, const std::vector<Point>& peer, std::int64_t length,
                     const std::string& name, const std::string& style) {
  ChartSeries line{.name = name, .style = style};
  const double dense = dense_ms(peer, length);
  for (const Point& point : own)
    if (dense > 0 && point.length == length && (point.mask == "random" || point.mask == "dense"))
      line.points.push_back({1 - point.density, dense / point.ms,
                             fmt::format("{}: sparsity {:.3f}, {:.3f} ms against {:.3f} ms, {:.2f} x", name,
                                         1 - point.density, point.ms, dense, dense / point.ms)});
  return line;
}

ChartSeries paper_line(std::int64_t length) {
  ChartSeries line{.name = "paper: over FlashAttention-2, A100, gate included", .style = "paper"};
  for (const paper::KernelSpeedUp& row : paper::kKernelSpeedUp)
    if (row.length == length)
      for (std::size_t i = 0; i < row.speed_up.size(); ++i)
        line.points.push_back(
            {paper::kSparsities[i], row.speed_up[i],
             fmt::format("paper: sparsity {}, {:.2f} x", paper::kSparsities[i], row.speed_up[i])});
  return line;
}

/// Records of one device and one shape of heads.
void add_setup(const Records& records, ReportPage& page) {
  const std::vector<Point> own = points_of(records, ""), flash = points_of(records, "flash"),
                           cudnn = points_of(records, "cudnn");
  if (own.empty()) return;
  page.heading(3, fmt::format("Prefill attention on {}: {}", records.front().device, records.front().shape));
  struct Chart {
    std::int64_t length;
    std::vector<ChartSeries> series;
  };
  std::vector<Chart> charts;
  Range speed;
  speed.add(1);
  for (const std::int64_t length : lengths_of(own)) {
    Chart chart{.length = length};
    for (ChartSeries line : {speed_up(own, flash, length, "over FlashAttention-2 dense", "s0"),
                             speed_up(own, cudnn, length, "over cuDNN dense", "s1")})
      if (!line.points.empty()) chart.series.push_back(std::move(line));
    if (chart.series.empty()) continue;
    if (ChartSeries line = paper_line(length); !line.points.empty()) chart.series.push_back(std::move(line));
    for (const ChartSeries& line : chart.series)
      for (const ChartPoint& point : line.points) speed.add(point.y);
    charts.push_back(std::move(chart));
  }
  std::vector<ChartSeries> keys;
  std::string svg;
  for (Chart& chart : charts) {
    ChartSeries ideal{.name = "1 / density", .style = "ideal"};
    for (const double sparsity : {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9})
      if (1 / (1 - sparsity) <= speed.high) ideal.points.push_back({sparsity, 1 / (1 - sparsity), ""});
    chart.series.insert(chart.series.begin(), std::move(ideal));
    for (const ChartSeries& line : chart.series) add_key(keys, line);
    svg += svg_chart(fmt::format("{} tokens", chart.length), linear_axis("sparsity", 0, 0.95),
                     log_axis("speed-up", 0.9 * std::min(speed.low, 1.0), speed.high * 1.1), chart.series);
  }
  page.figure(
      keys, svg,
      "Speed-up of block-sparse attention with random masks over dense kernels of the same card. Gate "
      "and selection are in the paper's numbers, but not in these.");

  ReportTable table{.header = {"mask", "tokens", "density", "ms", "over cuDNN dense", "over FlashAttention-2",
                               "share of cuDNN dense x density"}};
  for (const Point& point : own) {
    const auto over = [&](double dense) {
      return ReportCell{dense > 0 ? fmt::format("{:.2f} x", dense / point.ms) : std::string("-")};
    };
    const double best = dense_ms(cudnn, point.length);
    table.rows.push_back(
        {.name = point.mask.substr(point.mask.rfind('/') + 1),
         .cells = {{std::to_string(point.length)},
                   {fmt::format("{:.4f}", point.density)},
                   {fmt::format("{:.3f}", point.ms)},
                   over(best),
                   over(dense_ms(flash, point.length)),
                   {best > 0 ? fmt::format("{:.2f}", best * point.density / point.ms) : std::string("-")}},
         .kind = point.density == 1 ? ReportTable::Kind::kDense : ReportTable::Kind::kPlain});
  }
  page.table(table);
}

}  // namespace

void add_kernel_section(const ReportRun& run, ReportPage& page) {
  std::vector<Records> setups;
  for (const KernelRecord& record : run.kernels) {
    const auto same = std::find_if(setups.begin(), setups.end(), [&](const Records& setup) {
      return setup.front().device == record.device && setup.front().shape == record.shape;
    });
    if (same == setups.end())
      setups.push_back({record});
    else
      same->push_back(record);
  }
  for (const Records& setup : setups) add_setup(setup, page);
}

}  // namespace seer
