// The printable characters that stand for bytes in byte-level vocabularies.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace seer {

/// The bytes that a vocabulary entry stands for; nothing when a character of it stands for no byte. `token`
/// must be valid UTF-8.
std::optional<std::string> bytes_of_token(std::string_view token);

}  // namespace seer
