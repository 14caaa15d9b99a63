// The same command gives the same numbers: every evaluation twice, with every selector.
#include <fmt/core.h>

#include "longbench_folder.h"

namespace seer::test {
namespace {

class EvalReproducible : public LongBenchTest {
 protected:
  /// Runs `seer eval EVALUATION` twice, into two folders, and compares what outcome_of() finds there.
  void expect_same(const std::vector<std::string>& evaluation, const std::string& rows_file,
                   const std::string& predictions) const {
    for (const char* results : {"first", "second"}) {
      std::vector<std::string> arguments{"eval"};
      arguments.insert(arguments.end(), evaluation.begin(), evaluation.end());
      arguments.insert(arguments.end(), {"--selectors", "dense,gate,oracle,local,random", "--threads", "2",
                                         "--seed", "3", "--results", path(results)});
      const ProgramResult result = run_seer(arguments);
      ASSERT_EQ(result.exit_code, 0) << result.err;
    }
    const auto first = outcome_of(path("first"), rows_file, predictions);
    EXPECT_NE(first.at(rows_file).find("\"oracle\""), std::string::npos);
    EXPECT_EQ(first, outcome_of(path("second"), rows_file, predictions));
  }
};

TEST_F(EvalReproducible, Perplexity) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("def function_{}(x):\n    return x + {}\n\n", i, i);
  expect_same({"ppl", "--data", write("text.txt", text), "--lengths", "256,512", "--rule", "nz_ratio",
               "--values", "0.4"},
              "ppl.json", "");
}

TEST_F(EvalReproducible, Ruler) {
  expect_same({"ruler", "--tasks", "niah_multikey_1,vt", "--lengths", "640", "--samples", "1"}, "ruler.json",
              "pred");
}

TEST_F(EvalReproducible, LongBench) {
  expect_same({"longbench", "--data", path("bench"), "--max-samples", "2"}, "longbench.json", "pred_e");
}

}  // namespace
}  // namespace seer::test
