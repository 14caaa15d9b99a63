// Progress of long work, on standard error.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace seer {

/// A line like "distill: 42 % (3 min 10 s left), layer 3": rewritten in place on a terminal, a new line every
/// ten seconds otherwise. Not thread-safe.
class Progress {
 public:
  /// `total` is the work to do, in any unit. Prints nothing when `enabled` is false.
  Progress(std::string label, double total, bool enabled = true);
  /// Ends the line on a terminal.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Work that was done in an earlier run: it counts as done, but not for the estimate of the time left.
  void skip(double work);
  /// `done`: all work so far, skipped work included.
  void update(double done, std::string_view note = {});
  /// Prints a line of its own, above the progress line on a terminal.
  void message(std::string_view text);

 private:
  using Clock = std::chrono::steady_clock;
  void clear_line();

  std::string label_;
  double total_;
  bool enabled_;
  bool terminal_;
  bool line_open_ = false;
  double skipped_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_print_ = start_;
};

/// "8 s", "3 min 10 s", "2 h 05 min".
std::string format_duration(double seconds);

}  // namespace seer
