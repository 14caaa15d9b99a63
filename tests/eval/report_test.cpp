// Reports of perplexity, and reading rows.
#include "eval/report.h"

#include "core/check.h"
#include "eval/svg_chart.h"
#include "eval/svg_heat_map.h"
#include "report_support.h"
#include "support/errors.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

TEST_F(ReportTest, PageIsWellFormedAndSelfContained) {
  write_all();
  const std::string html = report_html({read()});
  expect_well_formed_and_alone(html);
  EXPECT_NE(html.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(html.find("a &amp; &lt;b&gt;"), std::string::npos);
}

TEST_F(ReportTest, EveryFigureHasItsPoints) {
  const std::string html = report_html({write_and_read(perplexity_rows())});
  EXPECT_EQ(count(html, "<figure>"), 3u);
  EXPECT_EQ(count(html, "role=\"img\""), 6u);  // three figures at two lengths
  EXPECT_EQ(html.find("points=\"\""), std::string::npos);
  EXPECT_EQ(html.find(">nan"), std::string::npos);
  EXPECT_EQ(html.find(">inf"), std::string::npos);
  // Per length: loss of 6 sparse rows, speed-ups of 3 gate rows twice, densities of 6; 5 of the paper at
  // 8192.
  EXPECT_EQ(count(html, "<g><title>"), 2u * (6 + 6 + 6) + 5);
}

TEST_F(ReportTest, NumbersAgreeWithTheRows) {
  const json rows = perplexity_rows();
  const ReportRun run = write_and_read(rows);
  const std::string html = report_html({run}), markdown = report_markdown({run}), csv = report_csv({run});
  for (const json& row : rows) {
    const double ppl = row["ppl"], density = row["density"];
    const json& dense = row["length"] == 4096 ? rows[0] : rows[7];
    ASSERT_EQ(dense["selector"], "dense");
    if (row["selector"] != "dense") {
      const std::string loss = fmt::format("{:+.2f} %", 100 * (ppl / dense["ppl"].get<double>() - 1));
      const double prefill = dense["prefill_seconds"].get<double>() / row["prefill_seconds"].get<double>();
      EXPECT_NE(html.find(fmt::format("{:.3f} s, {:.2f} x", row["prefill_seconds"].get<double>(), prefill)),
                std::string::npos);
      // The gate is better than local at every value.
      const bool best = row["selector"] == "gate";
      EXPECT_NE(html.find(fmt::format("{}{:.4f}{}<small>{} at {:.4f}", best ? "<strong>" : "<td>", ppl,
                                      best ? "</strong>" : "", loss, density)),
                std::string::npos);
      EXPECT_NE(
          markdown.find(fmt::format("{0}{1:.4f}{0} ({2} at {3:.4f})", best ? "**" : "", ppl, loss, density)),
          std::string::npos);
    }
    EXPECT_NE(csv.find(fmt::format("\"\",{},{},{},{},{},perplexity,{},2,0,", row["length"].get<int>(),
                                   row["selector"].get<std::string>(), row["rule"].get<std::string>(),
                                   row["value"].get<double>(), density, ppl)),
              std::string::npos);
  }
  EXPECT_EQ(count(csv, "\n"), rows.size() + 1);
}

TEST_F(ReportTest, PaperStandsBesideALengthThatItHas) {
  const std::string markdown = report_markdown({write_and_read(perplexity_rows())});
  EXPECT_NE(markdown.find("| paper, top-k 0.1 | - | 10.61 (+5.78 %) |"), std::string::npos) << markdown;
}

TEST_F(ReportTest, RowsWithoutDenseGiveTablesOnly) {
  json rows = perplexity_rows();
  rows.erase(7);
  rows.erase(0);
  const std::string html = report_html({write_and_read(rows)});
  expect_well_formed_and_alone(html);
  EXPECT_EQ(count(html, "<figure>"), 1u);  // densities need no baseline
}

TEST_F(ReportTest, OneRowOnly) {
  const std::string html = report_html({write_and_read(json::array({perplexity_rows()[0]}))});
  expect_well_formed_and_alone(html);
  EXPECT_EQ(count(html, "<figure>"), 0u);
}

TEST_F(ReportTest, FilesAreToldApartByTheirFields) {
  write_all();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() != ".json") continue;
    const ReportRun run = read_report_run(entry.path().string());
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(run.perplexity.empty(), name != "ppl.json");
    EXPECT_EQ(run.ruler.empty(), name != "ruler.json");
    EXPECT_EQ(run.longbench.empty(), name != "longbench.json");
    EXPECT_EQ(run.inspections.empty(), name != "inspect.json");
    EXPECT_EQ(run.kernels.empty(), name != "cuda_attention_gpu.json");
  }
}

TEST_F(ReportTest, DifferentCommandsAreAllShown) {
  json rows = perplexity_rows();
  rows[3]["command"] = "seer eval ppl again";
  const ReportRun run = write_and_read(rows);
  std::vector<std::string> commands;
  for (const auto& [key, value] : run.provenance)
    if (key == "command") commands.push_back(value);
  EXPECT_EQ(commands, (std::vector<std::string>{"seer eval ppl --data 'a & <b>'", "seer eval ppl again"}));
}

TEST_F(ReportTest, BadRowsAreNamed) {
  const auto error_with = [&](const char* name, json rows, const std::function<void(json&)>& change) {
    change(rows);
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write(name, rows.dump());
    return error_of([&] { read_report_run(folder_.string()); });
  };
  const auto expect = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(error_with("ppl.json", perplexity_rows(), [](json& rows) { rows[2].erase("density"); }),
         "ppl.json: row 3: missing field density");
  expect(error_with("ppl.json", perplexity_rows(), [](json& rows) { rows[0]["nll"] = 3; }),
         "ppl.json: row 1: field nll: expected a list, found number");
  expect(error_with("ruler.json", ruler_rows(), [](json& rows) { rows[1]["score"] = "x"; }),
         "ruler.json: row 2: field score: expected a number, found string");
  expect(error_with("ruler.json", ruler_rows(), [](json& rows) { rows[1]["samples"] = 2.5; }),
         "ruler.json: row 2: field samples: expected a whole number");
  expect(error_with("longbench.json", longbench_rows(), [](json& rows) { rows[0]["scores"]["8k+"] = "x"; }),
         "longbench.json: row 1: field scores: expected a number, found string");
  expect(error_with("inspect.json", inspect_rows(), [](json& rows) { rows[0]["head_recall"][1].erase(0); }),
         "inspect.json: row 1: field head_recall: expected a list of lists");
  expect(error_with("cuda_attention.json", kernel_records(), [](json& rows) { rows[4]["ms"] = 0; }),
         "cuda_attention.json: row 5: field ms: expected more than 0, found 0");
  expect(error_with("ppl.json", perplexity_rows(), [](json& rows) { rows = json::array(); }),
         "ppl.json: expected a JSON array of rows");
  expect(error_with("ppl.json", json::array({1}), [](json&) {}), "ppl.json: row 1: expected an object");
  fs::remove(folder_ / "ppl.json");
  expect(error_of([&] { read_report_run(folder_.string()); }), "expected ppl.json, ruler.json");
  expect(error_of([&] { read_report_run((folder_ / "nothing").string()); }), "no such folder or file");
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

TEST(SvgHeatMap, CellsGetStrongerAndEmptyOnesAreMarked) {
  const std::string svg = svg_heat_map({.title = "t",
                                        .rows = {"a"},
                                        .columns = {"1", "2", "3"},
                                        .cells = {{0.0, "zero", ""}, {10.0, "ten", ""}, {}},
                                        .high = 10});
  EXPECT_NE(svg.find("fill-opacity=\"0.000\""), std::string::npos);
  EXPECT_NE(svg.find("fill-opacity=\"1.000\""), std::string::npos);
  EXPECT_EQ(count(svg, "<rect"), 2u);
  EXPECT_EQ(count(svg, ">-</text>"), 1u);
}

}  // namespace
}  // namespace seer::test
