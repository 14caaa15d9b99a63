// Runs the built program as a user does, and builds the folders that it is given.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace seer::test {

struct ProgramResult {
  int exit_code = -1;  // -1: killed by a signal
  std::string out;
  std::string err;
  double seconds = 0;
};

struct ProgramOptions {
  std::string input;                 // standard input
  std::int64_t file_size_limit = 0;  // bytes; writes beyond fail as on a full disk. 0: none
  std::filesystem::path kill_when;   // SIGKILL as soon as this file has `kill_lines` lines
  std::int64_t kill_lines = 0;
  double kill_after = 0;  // SIGKILL so many seconds after the start. 0: never
};

/// Runs seer with these arguments and waits for it.
ProgramResult run_seer(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

/// Exit code 2, nothing on standard output, and one line on standard error that begins "seer: error: " and
/// has all `parts`.
::testing::AssertionResult is_user_error(const ProgramResult& result, const std::vector<std::string>& parts);

/// A test with an empty folder of its own.
class ProgramTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  /// Writes folder()/name, folders above included, and returns its path.
  std::string write(const std::string& name, const std::string& contents) const;
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  const std::filesystem::path& folder() const { return folder_; }
  /// Runs `arguments`, which write their results to path("cut") and take about `seconds`, and kills them at
  /// random moments, each run going on from what the last one left, until SEER_TEST_KILLS (default 3) were
  /// killed. Whenever a run ends by itself `samples` below path("cut") must hold `count` lines of different
  /// keys, `check` looks at the results, and they are removed.
  void kill_at_random_moments(const std::vector<std::string>& arguments, double seconds,
                              const std::string& samples, int count,
                              const std::function<void()>& check) const;
  /// A copy of the embedded model folder whose weights are a link; returns its path.
  std::string copy_embedded_model(const std::string& name) const;

 private:
  std::filesystem::path folder_;
};

std::string read_whole(const std::filesystem::path& path);

/// Rows of an evaluation without what differs from run to run: seconds and the command line.
nlohmann::json rows_without_times(const std::filesystem::path& rows_file);

/// What a finished evaluation leaves, by path below `results`: all files of the folder `predictions` (may be
/// empty: none), and the rows of `rows_file` without times.
std::map<std::string, std::string> outcome_of(const std::filesystem::path& results,
                                              const std::string& rows_file, const std::string& predictions);

/// A safetensors image: 8 bytes of header length, the header, then `data_bytes` zeros.
std::string safetensors_image(const std::string& header, std::size_t data_bytes);

/// A zip archive with stored entries, as torch.save() writes it, holding archive/data.pkl.
std::string torch_archive(const std::string& pickle);

}  // namespace seer::test
