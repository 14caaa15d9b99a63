#include "eval/sample_log.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/check.h"
#include "io/tensor_file.h"
#include "support/errors.h"

namespace fs = std::filesystem;

namespace seer {
namespace {

class SampleLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ("seer_log_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    path_ = (folder_ / "run" / "samples.jsonl").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
  std::string path_;
};

TEST_F(SampleLogTest, KeepsEveryKeyOnce) {
  {
    SampleLog log(path_);
    log.append("a", R"("x":1)");
    log.append("b", R"("x":2)");
    log.append("a", R"("x":3)");
    ASSERT_NE(log.find("a"), nullptr);
  }
  SampleLog log(path_);
  EXPECT_EQ(log.size(), 2u);
  EXPECT_EQ(*log.find("a"), R"({"key":"a","x":1})");
  EXPECT_EQ(log.find("c"), nullptr);
  EXPECT_EQ(read_file(path_), "{\"key\":\"a\",\"x\":1}\n{\"key\":\"b\",\"x\":2}\n");
}

TEST_F(SampleLogTest, AnyCutOfTheFileLosesAtMostTheLastLine) {
  {
    SampleLog log(path_);
    log.append("a", R"("x":1)");
    log.append("b", R"("x":2)");
  }
  const std::string whole = read_file(path_);
  const std::size_t first_line = whole.find('\n') + 1;
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << whole.substr(0, cut);
    {
      SampleLog log(path_);
      EXPECT_EQ(log.size(), (cut >= first_line ? 1u : 0u) + (cut == whole.size() ? 1u : 0u)) << cut;
      log.append("a", R"("x":1)");
      log.append("b", R"("x":2)");
    }
    EXPECT_EQ(read_file(path_), whole) << cut;
  }
}

TEST_F(SampleLogTest, RefusesAnotherRunAndOtherFiles) {
  {
    SampleLog log(path_);
    EXPECT_THROW(SampleLog second(path_), Error);
  }
  std::ofstream(path_) << "{\"key\":\"a\"}\nnot json\n";
  EXPECT_TRUE(test::error_names([&] { SampleLog log(path_); }, {"line 2"}));
}

TEST_F(SampleLogTest, AFullDiskLeavesTheFileAsItWas) {
  SampleLog log(path_);
  log.append("a", R"("x":1)");
  const std::string before = read_file(path_);
  // A limit of the file size fails a write as a full disk does: after part of it.
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = before.size() + 5, .rlim_max = old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(log.append("b", R"("x":2)"), Error);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(log.find("b"), nullptr);
  EXPECT_EQ(read_file(path_), before);
  log.append("b", R"("x":2)");
  EXPECT_EQ(read_file(path_), before + "{\"key\":\"b\",\"x\":2}\n");
}

TEST(Fingerprint, DependsOnOrderLengthAndContent) {
  const auto of = [](auto... values) {
    Fingerprint fingerprint;
    (fingerprint.add(values), ...);
    return fingerprint.hex();
  };
  using Text = std::string_view;
  EXPECT_EQ(of(Text("abc"), 1.5), of(Text("abc"), 1.5));
  EXPECT_EQ(of(Text("abc")).size(), 16u);
  EXPECT_NE(of(Text("ab"), Text("c")), of(Text("a"), Text("bc")));
  EXPECT_NE(of(Text("a")), of(Text(std::string_view("a\0", 2))));
  EXPECT_NE(of(std::uint64_t{1}, std::uint64_t{2}), of(std::uint64_t{2}, std::uint64_t{1}));
  EXPECT_NE(of(0.1), of(0.2));
}

}  // namespace
}  // namespace seer
