// Untrusted text in messages, and a limit on the nesting of untrusted JSON.
#pragma once

#include <string>
#include <string_view>

namespace seer {

/// `text` between single quotes as one short line of printable ASCII: other bytes are escaped, the rest of a
/// long text is left out.
std::string in_quotes(std::string_view text);

/// Throws Error naming `label` when brackets and braces in a JSON text nest deeper than `limit`. Copying,
/// comparing and printing parsed JSON recurse, so a file must not choose the depth.
void check_json_depth(std::string_view json, const std::string& label, int limit = 64);

}  // namespace seer
