// What the fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/check.h"

namespace seer::fuzz {

/// Runs `body`, which may throw Error; its message must be one short line. Anything else is a finding.
template <class Body>
void expect_error_or_success(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    if (message.empty() || message.size() > 2000) std::abort();
    for (const char c : message)
      if (static_cast<unsigned char>(c) < 0x20) std::abort();
  }
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace seer::fuzz
