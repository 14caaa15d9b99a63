// The one exception of the library.
#pragma once

#include <stdexcept>

namespace seer {

/// A bad input, or a device that cannot do what was asked. what() is one line that names the file, field or
/// flag, what was expected and what was found.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace seer
