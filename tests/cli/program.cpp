#include "program.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

void append_little_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
}

std::uint32_t crc32(const std::string& data) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

std::int64_t count_lines(const fs::path& path) {
  const std::string text = read_whole(path);
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace

std::string read_whole(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

ProgramResult run_seer(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  // Files instead of pipes: nothing can block, whatever the program writes.
  char name[] = "/tmp/seer_cli_XXXXXX";
  const int out = mkstemp(name);
  unlink(name);
  std::strcpy(name, "/tmp/seer_cli_XXXXXX");
  const int err = mkstemp(name);
  unlink(name);
  std::strcpy(name, "/tmp/seer_cli_XXXXXX");
  const int in = mkstemp(name);
  unlink(name);
  EXPECT_EQ(write(in, options.input.data(), options.input.size()),
            static_cast<ssize_t>(options.input.size()));
  lseek(in, 0, SEEK_SET);

  std::vector<char*> argv{const_cast<char*>(SEER_PROGRAM)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    if (options.file_size_limit > 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{static_cast<rlim_t>(options.file_size_limit),
                         static_cast<rlim_t>(options.file_size_limit)};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const auto is_time = [&] {
    return (options.kill_lines > 0 && count_lines(options.kill_when) >= options.kill_lines) ||
           (options.kill_after > 0 && seconds() >= options.kill_after);
  };
  if (options.kill_lines > 0 || options.kill_after > 0) {
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (is_time()) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } else {
    waitpid(child, &status, 0);
  }
  ProgramResult result;
  result.seconds = seconds();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  for (const auto& [file, text] : {std::pair{out, &result.out}, std::pair{err, &result.err}}) {
    lseek(file, 0, SEEK_SET);
    char buffer[1 << 16];
    for (ssize_t got = 0; (got = read(file, buffer, sizeof buffer)) > 0;)
      text->append(buffer, static_cast<std::size_t>(got));
    close(file);
  }
  close(in);
  return result;
}

::testing::AssertionResult is_user_error(const ProgramResult& result, const std::vector<std::string>& parts) {
  const auto failure = [&](const std::string& what) {
    return ::testing::AssertionFailure() << what << "; exit code " << result.exit_code
                                         << ", standard error: " << result.err.substr(0, 2000);
  };
  if (result.exit_code != 2) return failure("expected exit code 2");
  if (!result.out.empty()) return failure("unexpected standard output: " + result.out.substr(0, 200));
  if (!result.err.starts_with("seer: error: "))
    return failure("expected a line that begins with seer: error:");
  if (std::count(result.err.begin(), result.err.end(), '\n') != 1 || result.err.back() != '\n')
    return failure("expected one line");
  for (const std::string& part : parts)
    if (result.err.find(part) == std::string::npos) return failure("the message lacks \"" + part + "\"");
  return ::testing::AssertionSuccess();
}

void ProgramTest::SetUp() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  folder_ =
      fs::path(::testing::TempDir()) / ("seer_" + std::string(info->test_suite_name()) + "_" + info->name());
  fs::remove_all(folder_);
  fs::create_directories(folder_);
}

void ProgramTest::TearDown() { fs::remove_all(folder_); }

std::string ProgramTest::write(const std::string& name, const std::string& contents) const {
  const fs::path file = folder_ / name;
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << contents;
  return file.string();
}

std::string ProgramTest::copy_embedded_model(const std::string& name) const {
  const fs::path target = folder_ / name;
  fs::create_directories(target);
  for (const fs::directory_entry& entry : fs::directory_iterator(embedded_model())) {
    const fs::path file = entry.path().filename();
    if (file.extension() == ".safetensors")
      fs::create_symlink(entry.path(), target / file);
    else
      fs::copy_file(entry.path(), target / file);
  }
  return target.string();
}

void ProgramTest::kill_at_random_moments(const std::vector<std::string>& arguments, double seconds,
                                         const std::string& samples, int count,
                                         const std::function<void()>& check) const {
  const char* asked = std::getenv("SEER_TEST_KILLS");
  const int wanted = asked != nullptr ? std::atoi(asked) : 3;
  std::mt19937 random(7);
  std::uniform_real_distribution<double> moment(0.05 * seconds, seconds);
  const auto finish = [&] {
    const ProgramResult last = run_seer(arguments);
    ASSERT_EQ(last.exit_code, 0) << last.err;
    check();
    std::set<std::string> keys;
    std::istringstream lines(read_whole(path("cut/" + samples)));
    int found = 0;
    for (std::string line; std::getline(lines, line); ++found)
      keys.insert(nlohmann::json::parse(line)["key"].get<std::string>());
    EXPECT_EQ(found, count);
    EXPECT_EQ(keys.size(), static_cast<std::size_t>(count));
    fs::remove_all(path("cut"));
  };
  int kills = 0;
  for (int runs = 0; kills < wanted && runs < 5 * wanted; ++runs) {
    const ProgramResult result = run_seer(arguments, {.kill_after = moment(random)});
    if (result.exit_code == -1)
      ++kills;
    else
      finish();  // it was there before the moment came
  }
  finish();
  EXPECT_EQ(kills, wanted);
}

nlohmann::json rows_without_times(const fs::path& rows_file) {
  auto rows = nlohmann::json::parse(read_whole(rows_file));
  for (auto& row : rows)
    for (const char* name :
         {"prefill_seconds", "ttft_seconds", "select_seconds", "attention_seconds", "command"})
      row.erase(name);
  return rows;
}

std::map<std::string, std::string> outcome_of(const fs::path& results, const std::string& rows_file,
                                              const std::string& predictions) {
  std::map<std::string, std::string> files{{rows_file, rows_without_times(results / rows_file).dump()}};
  if (predictions.empty()) return files;
  for (const auto& entry : fs::recursive_directory_iterator(results / predictions))
    if (entry.is_regular_file())
      files[fs::relative(entry.path(), results).string()] = read_whole(entry.path());
  return files;
}

std::string safetensors_image(const std::string& header, std::size_t data_bytes) {
  const std::string padding((8 - header.size() % 8) % 8, ' ');  // as writers do, so that data is aligned
  std::string image;
  append_little_endian(image, header.size() + padding.size(), 8);
  return image + header + padding + std::string(data_bytes, '\0');
}

std::string torch_archive(const std::string& pickle) {
  std::string zip, directory;
  int entries = 0;
  for (const auto& [name, data] : {std::pair<std::string, std::string>{"archive/data.pkl", pickle},
                                   std::pair<std::string, std::string>{"archive/version", "3\n"}}) {
    std::string common;
    append_little_endian(common, 0, 2);  // flags
    append_little_endian(common, 0, 2);  // stored
    append_little_endian(common, 0, 4);  // time and date
    append_little_endian(common, crc32(data), 4);
    append_little_endian(common, data.size(), 4);
    append_little_endian(common, data.size(), 4);
    append_little_endian(common, name.size(), 2);
    append_little_endian(common, 0, 2);  // extra field
    directory += "PK\x01\x02";
    append_little_endian(directory, 20, 2);
    append_little_endian(directory, 20, 2);
    directory += common;
    for (const int bytes : {2, 2, 2, 4})
      append_little_endian(directory, 0, bytes);  // comment, disk, attributes
    append_little_endian(directory, zip.size(), 4);
    directory += name;
    zip += "PK\x03\x04";
    append_little_endian(zip, 20, 2);
    zip += common + name + data;
    ++entries;
  }
  const std::size_t offset = zip.size();
  zip += directory + "PK\x05\x06";
  append_little_endian(zip, 0, 4);
  append_little_endian(zip, static_cast<std::uint64_t>(entries), 2);
  append_little_endian(zip, static_cast<std::uint64_t>(entries), 2);
  append_little_endian(zip, directory.size(), 4);
  append_little_endian(zip, offset, 4);
  append_little_endian(zip, 0, 2);
  return zip;
}

}  // namespace seer::test
