// seer eval ppl and seer report, from documents to the page; interruption and resumption.
#include <fmt/core.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "program.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

class EvalPpl : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    std::string lines;
    for (int document = 0; document < kDocuments; ++document) {
      json ids = json::array();
      for (int i = 0; i < 400; ++i) ids.push_back(10 + (i * i * 7 + document * 131 + i / 3) % 4000);
      lines += json{{"input_ids", ids}}.dump() + "\n";
    }
    lines += "{\"input_ids\": [5, 6, 7]}\n";
    documents_ = write("docs.jsonl", lines);
  }

  std::vector<std::string> arguments(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"eval",     "ppl",     "--data",   documents_,    "--lengths",
                                 "128,320",  "--rule",  "nz_ratio", "--selectors", "local,dense,random",
                                 "--values", "0.5,0.2", "--dtype",  "float32",     "--threads",
                                 "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  static constexpr int kDocuments = 6;
  static constexpr int kSettings = 5;
  std::string documents_;
};

TEST_F(EvalPpl, RowsHoldWhatTheTableShows) {
  const ProgramResult result = run_seer(arguments({"--json", path("rows.json")}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("6 documents of 319 tokens or more, 1 shorter"), std::string::npos) << result.err;
  const json rows = json::parse(read_whole(path("rows.json")));
  ASSERT_EQ(rows.size(), 2u * kSettings);
  EXPECT_EQ(rows[0]["selector"], "dense");
  EXPECT_EQ(rows[0]["density"], 1.0);
  EXPECT_EQ(rows[kSettings]["selector"], "dense");
  for (const json& row : rows) {
    ASSERT_EQ(row["nll"].size(), static_cast<std::size_t>(kDocuments));
    double sum = 0;
    for (const json& nll : row["nll"]) sum += nll.get<double>();
    EXPECT_NEAR(row["ppl"], std::exp(sum / kDocuments), 1e-9 * row["ppl"].get<double>());
    EXPECT_NE(result.out.find(fmt::format("{:.4f}", row["ppl"].get<double>())), std::string::npos);
    for (const char* name : {"length", "selector", "rule", "value", "density", "prefill_seconds",
                             "select_seconds", "attention_seconds", "version", "command", "model", "gate",
                             "dtype", "device", "isa", "threads", "seed"})
      EXPECT_TRUE(row.contains(name)) << name;
  }
  // 320 tokens are 5 block rows; nz_ratio 0.2 keeps max(1, int((1 - sqrt(0.8)) 5)) = 1 block a row, and a row
  // always has the first block and its diagonal: 1 + 4 x 2 of 15.
  EXPECT_EQ(rows[kSettings + 2]["selector"], "local");
  EXPECT_NEAR(rows[kSettings + 2]["density"], 9.0 / 15, 1e-9);
}

TEST_F(EvalPpl, AgreesWithScore) {
  ASSERT_EQ(run_seer(arguments({"--json", path("rows.json")})).exit_code, 0);
  const json rows = json::parse(read_whole(path("rows.json")));
  const std::string docs = read_whole(documents_);
  const json ids = json::parse(docs.substr(0, docs.find('\n')))["input_ids"];
  std::string text = "0";  // the start token
  for (int i = 0; i < 127; ++i) text += " " + ids[static_cast<std::size_t>(i)].dump();
  const ProgramResult score =
      run_seer({"score", "--ids", write("ids.txt", text), "--json", "--dtype", "float32", "--threads", "1"});
  ASSERT_EQ(score.exit_code, 0) << score.err;
  EXPECT_NEAR(json::parse(score.out)["nll"], rows[0]["nll"][0].get<double>(), 1e-9);
}

TEST_F(EvalPpl, KilledAtAnyMomentNothingIsLostOrCountedTwice) {
  ASSERT_EQ(run_seer(arguments({"--results", path("whole")})).exit_code, 0);
  const json whole = rows_without_times(path("whole/ppl.json"));
  const auto total = static_cast<std::int64_t>(2 * kDocuments * kSettings);

  const fs::path samples = path("cut/ppl.samples.jsonl");
  int interruptions = 0;
  for (const std::int64_t lines : {1, 7, 8, 23, 41, 59}) {
    const ProgramResult result =
        run_seer(arguments({"--results", path("cut")}), {.kill_when = samples, .kill_lines = lines});
    if (result.exit_code != -1) continue;  // it was faster than the look at the file
    ++interruptions;
    EXPECT_FALSE(fs::exists(path("cut/ppl.json")));
    if (interruptions == 2) {  // as if the machine had stopped in the middle of a line
      const std::string text = read_whole(samples);
      write("cut/ppl.samples.jsonl", text.substr(0, text.size() - 20));
    }
  }
  EXPECT_GE(interruptions, 1);
  const ProgramResult last = run_seer(arguments({"--results", path("cut")}));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_NE(last.err.find("samples are there already"), std::string::npos) << last.err;

  std::set<std::string> keys;
  std::istringstream lines(read_whole(samples));
  std::int64_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) keys.insert(json::parse(line)["key"]);
  EXPECT_EQ(count, total);
  EXPECT_EQ(keys.size(), static_cast<std::size_t>(total));
  EXPECT_EQ(rows_without_times(path("cut/ppl.json")), whole);
}

TEST_F(EvalPpl, FinishedSamplesServeLargerRunsButNotOtherSettings) {
  ASSERT_EQ(run_seer(arguments({"--results", path("run")})).exit_code, 0);
  const auto samples = [&] {
    const std::string text = read_whole(path("run/ppl.samples.jsonl"));
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(samples(), 60);
  ASSERT_EQ(run_seer(arguments({"--results", path("run"), "--max-documents", "2"})).exit_code, 0);
  EXPECT_EQ(samples(), 60);
  EXPECT_EQ(json::parse(read_whole(path("run/ppl.json")))[0]["nll"].size(), 2u);
  // Another seed concerns the random selector alone: 2 documents x 2 lengths x 2 values.
  ASSERT_EQ(run_seer(arguments({"--results", path("run"), "--max-documents", "2", "--seed", "1"})).exit_code,
            0);
  EXPECT_EQ(samples(), 68);
}

TEST_F(EvalPpl, SlidingWindowsCoverTheDocument) {
  const ProgramResult result =
      run_seer({"eval", "ppl", "--data", documents_, "--lengths", "128", "--selectors", "dense",
                "--sliding-window", "100", "--max-documents", "1", "--json", path("rows.json"), "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.err.empty()) << result.err;
  // Windows of 127 tokens from 0, 100, 200 and 300 reach the end of 400 tokens.
  EXPECT_EQ(json::parse(read_whole(path("rows.json")))[0]["nll"].size(), 4u);
}

TEST_F(EvalPpl, FolderOfTextsToReport) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("def function_{}(x):\n    return x + {}\n\n", i, i);
  write("texts/a.py", text);
  write("texts/sub/b.py", text);
  write("texts/c.bin", std::string("\xff\xfe\0\1", 4));
  const ProgramResult eval =
      run_seer({"eval", "ppl", "--data", path("texts"), "--lengths", "256,512", "--rule", "nz_ratio",
                "--selectors", "dense,oracle,local", "--values", "0.5,0.3", "--results", path("run")});
  ASSERT_EQ(eval.exit_code, 0) << eval.err;
  const ProgramResult report = run_seer(
      {"report", path("run"), "--out", path("r.html"), "--markdown", path("r.md"), "--csv", path("r.csv")});
  ASSERT_EQ(report.exit_code, 0) << report.err;
  const std::string html = read_whole(path("r.html")), markdown = read_whole(path("r.md"));
  for (const json& row : json::parse(read_whole(path("run/ppl.json")))) {
    const std::string ppl = fmt::format("{:.4f}", row["ppl"].get<double>());
    EXPECT_NE(html.find(ppl), std::string::npos);
    EXPECT_NE(markdown.find(ppl), std::string::npos);
  }
  EXPECT_EQ(run_seer({"report", path("run")}).out, markdown);
}

}  // namespace
}  // namespace seer::test
