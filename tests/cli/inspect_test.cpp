// seer inspect as a user runs it.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "program.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

using nlohmann::json;

class InspectProgram : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    std::string text;
    for (int i = 0; i < 500; ++i) text += fmt::format("{} ", 10 + (i * i * 7 + i / 3) % 4000);
    ids_ = write("ids.txt", text);
  }
  ProgramResult inspect(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"inspect", "--ids", ids_, "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return run_seer(all);
  }
  std::string ids_;
};

TEST_F(InspectProgram, PageTableRowsAndReportAgree) {
  const ProgramResult result = inspect({"--selectors", "oracle,local", "--rule", "nz_ratio", "--values",
                                        "0.5", "--tokens", "320", "--layers", "2,5", "--heads", "0", "--out",
                                        path("page.html"), "--json", path("inspect.json")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json rows = json::parse(read_whole(path("inspect.json")));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["selector"], "oracle");
  EXPECT_EQ(rows[1]["length"], 320);
  EXPECT_EQ(rows[1]["head_recall"].size(), 8u);
  for (const char* name : {"version", "command", "model", "data", "dtype", "isa", "threads", "seed"})
    EXPECT_TRUE(rows[0].contains(name)) << name;
  for (const json& row : rows) {
    const std::string recall = fmt::format("{:.4f}", row["recall"].get<double>());
    EXPECT_NE(result.out.find(recall), std::string::npos);
    EXPECT_NE(read_whole(path("page.html")).find("recall " + recall), std::string::npos);
    EXPECT_NE(run_seer({"report", path("inspect.json")}).out.find(recall), std::string::npos);
  }
}

TEST_F(InspectProgram, MasksHaveOneWordPerRowAndHead) {
  const ProgramResult result = inspect({"--selectors", "local", "--rule", "nz_ratio", "--values", "0.5",
                                        "--save-masks", path("masks"), "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  for (int layer = 0; layer < 8; ++layer)
    EXPECT_EQ(fs::file_size(path(fmt::format("masks/layer_{:02}.mask", layer))), 8u * 8 * 8);
}

TEST_F(InspectProgram, BadInputIsNamed) {
  const std::vector<std::string> local{"--selectors", "local", "--rule", "nz_ratio", "--values", "0.5"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), local.begin(), local.end());
    return inspect(more);
  };
  EXPECT_TRUE(is_user_error(with({"--tokens", "501"}), {"--tokens", "500 tokens", "501"}));
  EXPECT_TRUE(is_user_error(with({"--layers", "8"}), {"--layers", "0 to 7", "8"}));
  EXPECT_TRUE(is_user_error(with({"--heads", "-1"}), {"--heads", "-1"}));
  EXPECT_TRUE(is_user_error(with({"--text-file", ids_}), {"--text-file", "--ids", "both"}));
  EXPECT_TRUE(is_user_error(with({"--density", "0.1"}), {"--density"}));
  EXPECT_TRUE(is_user_error(
      inspect({"--selectors", "oracle,local", "--density", "0.5", "--save-masks", path("masks")}),
      {"--save-masks", "2 settings"}));
  EXPECT_TRUE(is_user_error(inspect({"--selectors", "best", "--density", "0.5"}), {"selector", "best"}));
  EXPECT_FALSE(fs::exists(path("masks")));
}

}  // namespace
}  // namespace seer::test
