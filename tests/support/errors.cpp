#include "support/errors.h"

#include "core/check.h"

namespace seer::test {

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
    return message;
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

::testing::AssertionResult names(const std::string& message, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << "'" << part << "' is not in: " << message;
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult error_names(const std::function<void()>& body,
                                       std::initializer_list<std::string_view> parts) {
  return names(error_of(body), parts);
}

}  // namespace seer::test
