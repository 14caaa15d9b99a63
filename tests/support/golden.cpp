#include "support/golden.h"

#include <algorithm>
#include <cstdlib>
#include <set>

namespace fs = std::filesystem;

namespace seer::test {

std::vector<fs::path> golden_roots() {
  const fs::path source = SEER_SOURCE_DIR;
  const char* named = std::getenv("SEER_GOLDEN_DIR");
  std::vector<fs::path> roots;
  for (const fs::path& root : {named != nullptr ? fs::path(named) : source / ".." / "shared" / "golden",
                               source / "tests" / "golden"})
    if (fs::is_directory(root)) roots.push_back(fs::canonical(root));
  return roots;
}

std::vector<fs::path> golden_files(const std::string& folder, const std::string& extension) {
  std::vector<fs::path> found;
  std::set<std::string> seen;
  for (const fs::path& root : golden_roots()) {
    std::vector<fs::path> folders;
    if (!folder.empty() && folder.back() == '*') {
      const std::string prefix = folder.substr(0, folder.size() - 1);
      for (const auto& entry : fs::directory_iterator(root))
        if (entry.is_directory() && entry.path().filename().string().starts_with(prefix))
          folders.push_back(entry.path());
    } else if (fs::is_directory(root / folder)) {
      folders.push_back(root / folder);
    }
    for (const fs::path& directory : folders)
      for (const auto& entry : fs::directory_iterator(directory))
        if (entry.is_regular_file() && entry.path().string().ends_with(extension) &&
            seen.insert(fs::relative(entry.path(), root).string()).second)
          found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

fs::path golden_path(const std::string& relative) {
  for (const fs::path& root : golden_roots())
    if (fs::exists(root / relative)) return root / relative;
  return {};
}

fs::path embedded_model() { return fs::path(SEER_SOURCE_DIR) / "models" / "pico-llama-19m"; }

}  // namespace seer::test
