#include "core/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace seer {
namespace {

constexpr auto kTerminalInterval = std::chrono::milliseconds(200);
constexpr auto kLogInterval = std::chrono::seconds(10);

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

Progress::Progress(std::string label, double total, bool enabled)
    : label_(std::move(label)), total_(total), enabled_(enabled), terminal_(isatty(STDERR_FILENO) == 1) {
  if (!terminal_) next_print_ = start_ + kLogInterval;
}

Progress::~Progress() { clear_line(); }

void Progress::clear_line() {
  if (!line_open_) return;
  std::fputs("\r\x1b[K", stderr);
  line_open_ = false;
}

void Progress::skip(double work) { skipped_ += work; }

void Progress::update(double done, std::string_view note) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (now < next_print_) return;
  next_print_ = now + (terminal_ ? Clock::duration(kTerminalInterval) : Clock::duration(kLogInterval));
  const double share = total_ > 0 ? std::min(done / total_, 1.0) : 1.0;
  std::string line = fmt::format("{}: {:.0f} %", label_, 100 * share);
  if (done > skipped_) {
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    line += fmt::format(" ({} left)", format_duration(elapsed * (total_ - done) / (done - skipped_)));
  }
  if (!note.empty()) line += fmt::format(", {}", note);
  clear_line();
  std::fputs(line.c_str(), stderr);
  if (terminal_) {
    line_open_ = true;
    std::fflush(stderr);
  } else {
    std::fputc('\n', stderr);
  }
}

void Progress::message(std::string_view text) {
  if (!enabled_) return;
  clear_line();
  fmt::print(stderr, "{}\n", text);
}

}  // namespace seer
