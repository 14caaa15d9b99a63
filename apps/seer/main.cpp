// The program: one file per subcommand. Errors of the user end in one line on standard error and exit code 2,
// any other failure in exit code 1.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>

#include "commands.h"
#include "core/check.h"

namespace {

constexpr int kUserError = 2;
constexpr int kFailure = 1;

int report_error(std::string text, int exit_code) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::fflush(stdout);
  fmt::print(stderr, "seer: error: {}\n", text);
  return exit_code;
}

/// GNU OpenMP's threads spin for milliseconds at a barrier: where other programs hold the cores, each barrier
/// then takes that long (docs/kernels/cpu_decode.md). Its limit is read from the environment before main(),
/// so the program starts itself once more with one.
void limit_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  std::error_code error;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (!error && setenv("GOMP_SPINCOUNT", "3000", 1) == 0) execv(program.c_str(), argv);
}

/// Asks for a subcommand once the whole command line is read, so that an unknown word is named instead.
void need_subcommand(CLI::App& app) {
  app.callback([&app] {
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A subcommand");
  });
}

/// A full disk or a closed pipe behind standard output must not look like success.
int close_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return report_error("standard output: cannot write", kFailure);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  limit_spinning(argv);
  CLI::App app{"seer: long-context language models with learned block-sparse attention", "seer"};
  app.set_version_flag("--version", "seer " SEER_VERSION);
  need_subcommand(app);
  app.get_formatter()->column_width(34);
  add_info(app);
  add_tokenize(app);
  add_detokenize(app);
  add_score(app);
  add_generate(app);
  add_distill(app);
  add_calibrate(app);
  CLI::App& eval = *app.add_subcommand("eval", "Evaluations");
  need_subcommand(eval);
  add_eval_ppl(eval);
  add_eval_longbench(eval);
  add_eval_ruler(eval);
  add_eval_run(eval);
  add_inspect(app);
  add_report(app);
  CLI::App& bench = *app.add_subcommand("bench", "Benchmarks");
  need_subcommand(bench);
  add_bench_attention(bench);
  add_bench_distill(bench);
  add_bench_gate(bench);
  add_bench_model(bench);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success))
      return report_error(std::string(error.what()) + "; see seer --help", kUserError);
    app.exit(error);  // --help and --version
  } catch (const seer::Error& error) {
    return report_error(error.what(), kUserError);
  } catch (const std::bad_alloc&) {
    return report_error("out of memory", kFailure);
  } catch (const std::exception& error) {
    return report_error(error.what(), kFailure);
  }
  return close_output();
}
