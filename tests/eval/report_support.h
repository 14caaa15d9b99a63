// Rows as the evaluations write them, and checks of the pages made of them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "eval/report.h"

namespace seer::test {

/// Dense and two selectors at two lengths, three values each: 2 x (1 + 3 + 3) rows of ppl.json, the dense
/// rows being the first and the eighth.
nlohmann::json perplexity_rows();
/// Rows of ruler.json: dense and gate at 4096 and 8192 tokens, three tasks.
nlohmann::json ruler_rows();
/// Lines of ruler.samples.jsonl with needles at depths 0, 50 and 100.
std::string needle_lines();
/// Rows of longbench.json: dense, gate and local, two tasks, the last bucket of the second empty.
nlohmann::json longbench_rows();
/// One row of inspect.json: 2 layers of 3 heads.
nlohmann::json inspect_rows();
/// Records of the attention benchmark on one device at 8192 tokens.
nlohmann::json kernel_records();

/// A test with a results folder of its own.
class ReportTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  void write(const std::string& name, const std::string& text) const;
  void write_all() const;  ///< every file above
  ReportRun read() const { return read_report_run(folder_.string()); }
  ReportRun write_and_read(const nlohmann::json& rows, const std::string& name = "ppl.json") const;

  std::filesystem::path folder_;
};

/// Fails unless every tag is closed in order and every attribute quoted, as XML demands, and nothing outside
/// the page is named.
void expect_well_formed_and_alone(const std::string& html);

std::size_t count(const std::string& text, const std::string& part);

}  // namespace seer::test
