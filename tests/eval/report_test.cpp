#include "eval/report.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/check.h"
#include "eval/svg_chart.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

using nlohmann::json;

/// Rows as seer eval ppl writes them: dense and two selectors at two lengths.
json sample_rows() {
  json rows = json::array();
  for (const std::int64_t length : {4096, 8192}) {
    for (const char* selector : {"dense", "gate", "local"}) {
      for (const double value : {0.5, 0.2, 0.1}) {
        const bool dense = std::string_view(selector) == "dense";
        if (dense && value != 0.5) continue;
        const double density = dense ? 1.0 : value * 0.97;
        rows.push_back({{"length", length},
                        {"selector", selector},
                        {"rule", dense ? "dense" : "nz_ratio"},
                        {"value", dense ? 1.0 : value},
                        {"density", density},
                        {"ppl", 6.0 + (1 - density) * static_cast<double>(length) / 4096 - (dense ? 0 : 0.6)},
                        {"nll", {1.7, 1.9}},
                        {"prefill_seconds", 0.5 + density},
                        {"select_seconds", dense ? 0.0 : 0.01},
                        {"attention_seconds", density},
                        {"version", "0.1.0"},
                        {"command", "seer eval ppl --data 'a & <b>'"},
                        {"seed", 0}});
      }
    }
  }
  return rows;
}

class ReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ("seer_report_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  ReportRun write_and_read(const json& rows) {
    std::ofstream(folder_ / "ppl.json") << rows.dump();
    return read_report_run(folder_.string());
  }
  fs::path folder_;
};

/// Fails unless every tag is closed in order and every attribute quoted, as XML demands.
void expect_well_formed(const std::string& html) {
  static const std::regex tag(R"(<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:\s+[a-zA-Z:-]+="[^"<]*")*)\s*(/?)>)");
  std::vector<std::string> open;
  std::size_t position = html.find('\n') + 1;
  ASSERT_EQ(html.substr(0, position), "<!DOCTYPE html>\n");
  while ((position = html.find('<', position)) != std::string::npos) {
    std::smatch match;
    const auto begin = html.begin() + static_cast<std::ptrdiff_t>(position);
    ASSERT_TRUE(std::regex_search(begin, html.end(), match, tag, std::regex_constants::match_continuous))
        << html.substr(position, 120);
    if (match[1].length() > 0) {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(open.back(), match[2].str()) << html.substr(position, 120);
      open.pop_back();
    } else if (match[4].length() == 0) {
      open.push_back(match[2].str());
    }
    position += static_cast<std::size_t>(match.length());
  }
  EXPECT_TRUE(open.empty());
  static const std::regex bare_ampersand("&(?!(amp|lt|gt|quot);)");
  EXPECT_FALSE(std::regex_search(html, bare_ampersand));
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

TEST_F(ReportTest, PageIsWellFormedAndSelfContained) {
  const std::string html = report_html({write_and_read(sample_rows())});
  expect_well_formed(html);
  for (const char* outside : {"http:", "https:", "src=", "href=", "url(", "@import", "<script"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  EXPECT_NE(html.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(html.find("a &amp; &lt;b&gt;"), std::string::npos);
}

TEST_F(ReportTest, EveryFigureHasItsPoints) {
  const std::string html = report_html({write_and_read(sample_rows())});
  EXPECT_EQ(count(html, "<figure>"), 3u);
  EXPECT_EQ(count(html, "role=\"img\""), 6u);  // three figures at two lengths
  EXPECT_EQ(html.find("points=\"\""), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf"), std::string::npos);
  // Per length: loss of 6 sparse rows, speed-ups of 3 gate rows twice, densities of 6.
  EXPECT_EQ(count(html, "<g><title>"), 2u * (6 + 6 + 6));
}

TEST_F(ReportTest, NumbersAgreeWithTheRows) {
  const json rows = sample_rows();
  const ReportRun run = write_and_read(rows);
  const std::string html = report_html({run}), markdown = report_markdown({run}), csv = report_csv({run});
  for (const json& row : rows) {
    const double ppl = row["ppl"], density = row["density"];
    const json& dense = row["length"] == 4096 ? rows[0] : rows[7];
    ASSERT_EQ(dense["selector"], "dense");
    std::string loss;
    if (row["selector"] != "dense") {
      loss = fmt::format("{:+.2f} %", 100 * (ppl / dense["ppl"].get<double>() - 1));
      const double prefill = dense["prefill_seconds"].get<double>() / row["prefill_seconds"].get<double>();
      EXPECT_NE(html.find(fmt::format("{:.3f} s, {:.2f} x", row["prefill_seconds"].get<double>(), prefill)),
                std::string::npos);
      EXPECT_NE(html.find(fmt::format("{:.4f}<small>{} at {:.4f}", ppl, loss, density)), std::string::npos);
      EXPECT_NE(markdown.find(fmt::format("{:.4f} ({} @ {:.4f})", ppl, loss, density)), std::string::npos);
    }
    EXPECT_NE(csv.find(fmt::format("{},{},{},{},{},{},2,", row["length"].get<int>(),
                                   row["selector"].get<std::string>(), row["rule"].get<std::string>(),
                                   row["value"].get<double>(), density, ppl)),
              std::string::npos);
  }
  EXPECT_EQ(count(csv, "\n"), rows.size() + 1);
}

TEST_F(ReportTest, RowsWithoutDenseGiveTablesOnly) {
  json rows = sample_rows();
  rows.erase(7);
  rows.erase(0);
  const std::string html = report_html({write_and_read(rows)});
  expect_well_formed(html);
  EXPECT_EQ(count(html, "<figure>"), 1u);  // densities need no baseline
}

TEST_F(ReportTest, OneRowOnly) {
  const json rows = json::array({sample_rows()[0]});
  const std::string html = report_html({write_and_read(rows)});
  expect_well_formed(html);
  EXPECT_EQ(count(html, "<figure>"), 0u);
}

TEST_F(ReportTest, BadRowsAreNamed) {
  json rows = sample_rows();
  rows[2].erase("density");
  try {
    write_and_read(rows);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("ppl.json: row 3: missing field density"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(write_and_read(json::array()), Error);
  EXPECT_THROW(read_report_run((folder_ / "nothing").string()), Error);
}

TEST(SvgChart, TicksAreRoundAndInside) {
  const ChartAxis linear = linear_axis("x", 0, 0.53);
  ASSERT_GE(linear.ticks.size(), 4u);
  EXPECT_EQ(linear.ticks.front().second, "0");
  EXPECT_LE(linear.ticks.back().first, 0.53);
  const ChartAxis log = log_axis("x", 0.06, 1.05);
  EXPECT_EQ(log.ticks.front().second, "0.1");
  EXPECT_EQ(log.ticks.back().second, "1");
  const ChartAxis change = percent_change_axis("y", -0.5, 40);
  EXPECT_EQ(change.ticks.front().second, "0 %");
  EXPECT_EQ(change.ticks.back().second, "+30 %");
}

}  // namespace
}  // namespace seer
