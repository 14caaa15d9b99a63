// Where golden data lies: the folder that SEER_GOLDEN_DIR names (by default ../shared/golden beside the
// repository) where it exists, and always the subset committed under tests/golden.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace seer::test {

/// The golden folders that exist, the full one first.
std::vector<std::filesystem::path> golden_roots();

/// Every file `folder/*extension` of all roots, sorted; a name found in the full folder is not repeated from
/// the subset. `folder` may be a glob of one trailing '*' ("tiny-*"), then folders' files of that name are
/// found.
std::vector<std::filesystem::path> golden_files(const std::string& folder, const std::string& extension);

/// First root's `relative` path that exists, or an empty path.
std::filesystem::path golden_path(const std::string& relative);

/// The repository's embedded model folder.
std::filesystem::path embedded_model();

}  // namespace seer::test
