// Errors. Everything a user can cause (a file, a field, a flag, a shape) is a seer::Error with one line that
// names it, says what was expected and what was found; the program turns it into exit code 2.
#pragma once

#include <fmt/core.h>

#include <utility>

#include "seer/error.h"

namespace seer {

/// Throws Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace seer

/// Throws seer::Error with the formatted message unless `condition` holds.
#define SEER_CHECK(condition, ...) \
  do {                             \
    if (!(condition)) [[unlikely]] \
      ::seer::fail(__VA_ARGS__);   \
  } while (0)
