// What a test expects to be refused.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

namespace seer::test {

/// What Error says when `body` throws it; fails the test when it does not, or when that is not one line.
std::string error_of(const std::function<void()>& body);

/// Success when the message contains every part.
::testing::AssertionResult names(const std::string& message, std::initializer_list<std::string_view> parts);

/// names(error_of(body), parts).
::testing::AssertionResult error_names(const std::function<void()>& body,
                                       std::initializer_list<std::string_view> parts);

}  // namespace seer::test
