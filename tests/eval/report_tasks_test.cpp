// Reports of RULER, LongBench-E, inspections and kernel benchmarks.
#include "report_support.h"

namespace seer::test {
namespace {

using nlohmann::json;

TEST_F(ReportTest, RulerScoresBesideDenseAndPaper) {
  const ReportRun run = write_and_read(ruler_rows(), "ruler.json");
  const std::string markdown = report_markdown({run}), html = report_html({run});
  // Means of 96, 92, 88 / 92, 88, 84 / 40, 36, 32.
  EXPECT_NE(markdown.find("| dense | 92.00 (density 1.0000) | 92.00 (density 1.0000) |"), std::string::npos)
      << markdown;
  EXPECT_NE(markdown.find("| gate, threshold 0.0005 | **88.00** (density 0.3000) |"), std::string::npos);
  EXPECT_NE(markdown.find("| local, threshold 0.0005 | 36.00 (density 0.3000) |"), std::string::npos);
  EXPECT_NE(markdown.find("| paper, threshold 5e-4 | 95.53 | 92.71 |"), std::string::npos);
  EXPECT_NE(markdown.find("| gate, threshold 0.0005 | 0.400 s (2.75 x) |"), std::string::npos);
  EXPECT_EQ(count(html, "class=\"heat\""), 3u);
  EXPECT_EQ(count(html, "class=\"cell\""), 3u * 3 * 2);
}

TEST_F(ReportTest, FailedSamplesAreCounted) {
  json rows = ruler_rows();
  rows[3]["failed"] = 2;
  EXPECT_NE(report_markdown({write_and_read(rows, "ruler.json")}).find("Of 450 samples 2 failed."),
            std::string::npos);
}

TEST_F(ReportTest, NeedlesByDepth) {
  write("ruler.json", ruler_rows().dump());
  write("ruler.samples.jsonl", needle_lines() + "{\"key\": \"half a li");
  const ReportRun run = read();
  EXPECT_EQ(run.needles.size(), 6u);
  const std::string html = report_html({run});
  EXPECT_EQ(count(html, "class=\"heat\""), 4u);
  EXPECT_NE(html.find("4096 tokens, depth 50-60 %: score 50.00 of 1 samples"), std::string::npos);
  EXPECT_NE(html.find("8192 tokens, depth 90-100 %: score 0.00 of 1 samples"), std::string::npos);
}

TEST_F(ReportTest, NothingIsBestWhereAllScoreTheSame) {
  json rows = longbench_rows();
  for (json& row : rows)
    if (row["task"] == "trec") row["score"] = 0;
  const std::string markdown = report_markdown({write_and_read(rows, "longbench.json")});
  EXPECT_NE(markdown.find("| trec | 0.00 | 0.00 | 0.00 |"), std::string::npos) << markdown;
  EXPECT_NE(markdown.find("| qasper | 50.00 | **48.25** | 31.00 |"), std::string::npos);
}

TEST_F(ReportTest, LongBenchAveragesByBucket) {
  const ReportRun run = write_and_read(longbench_rows(), "longbench.json");
  const std::string markdown = report_markdown({run});
  EXPECT_NE(markdown.find("| qasper | 50.00 | **48.25** | 31.00 |"), std::string::npos) << markdown;
  EXPECT_NE(markdown.find("| mean | 50.00 | **48.25** | 31.00 |"), std::string::npos);
  EXPECT_NE(markdown.find("| mean, 0-4k | 51.00 | **49.25** | 32.00 |"), std::string::npos);
  // The second task has no samples of 8k and more.
  EXPECT_NE(markdown.find("| mean, 8k+ | 49.00 | **47.25** | 30.00 |"), std::string::npos);
  EXPECT_NE(markdown.find("### LongBench-E"), std::string::npos);
  EXPECT_NE(markdown.find("The paper"), std::string::npos);
  const std::string html = report_html({run});
  EXPECT_NE(html.find("gate, threshold 0.0005: density 0.4000, score 49.25"), std::string::npos) << html;
  EXPECT_NE(html.find("gate, threshold 0.0005: density 0.2000, score 47.25"), std::string::npos);
}

TEST_F(ReportTest, LongBenchWithoutEHasNoPaperToCompareWith) {
  json rows = longbench_rows();
  for (json& row : rows) row["benchmark"] = "LongBench";
  const std::string markdown = report_markdown({write_and_read(rows, "longbench.json")});
  EXPECT_NE(markdown.find("### LongBench\n"), std::string::npos) << markdown;
  EXPECT_EQ(markdown.find("The paper"), std::string::npos);
}

TEST_F(ReportTest, HeadsOfAnInspection) {
  const ReportRun run = write_and_read(inspect_rows(), "inspect-a.json");
  const std::string html = report_html({run}), csv = report_csv({run});
  EXPECT_EQ(count(html, "class=\"cell\""), 2u * 6);
  EXPECT_NE(csv.find("inspect,\"layer 0 head 1\",4096,gate,adaptive,0.1,0.2,recall,0.8,1,"),
            std::string::npos)
      << csv;
}

TEST_F(ReportTest, KernelsAgainstDensePeersAndPaper) {
  const std::string markdown = report_markdown({write_and_read(kernel_records(), "cuda_attention_gpu.json")});
  // The median of cuDNN's two times is 1 ms.
  EXPECT_NE(markdown.find("| random | 8192 | 0.1000 | 0.125 | 8.00 x | 16.00 x | 0.80 |"), std::string::npos)
      << markdown;
  EXPECT_NE(markdown.find("### Prefill attention on GPU: 32 heads, 8 KV heads of 128, bf16"),
            std::string::npos);
  EXPECT_NE(markdown.find("| layer_00.mask | 8192 | 0.1000 | 0.100 | 10.00 x |"), std::string::npos);
  // Another shape of heads has no dense peer.
  EXPECT_NE(markdown.find("| random | 8192 | 0.1000 | 0.050 | - | - | - |"), std::string::npos);
  const std::string html = report_html({read()});
  EXPECT_NE(html.find("paper: sparsity 0.9, 4.15 x"), std::string::npos);
  EXPECT_EQ(html.find("points=\"\""), std::string::npos);
}

TEST_F(ReportTest, SeveralRunsFollowEachOther) {
  write_all();
  const std::string markdown = report_markdown({read(), read_report_run((folder_ / "ruler.json").string())});
  EXPECT_LT(markdown.find("## seer_report_"), markdown.find("## ruler.json"));
  EXPECT_EQ(count(markdown, "### RULER"), 2u);
}

}  // namespace
}  // namespace seer::test
