// Pages as a browser shows them: every figure has something in it, no text is cut off or lies on another, and
// nothing is reported on the console.
#include <fmt/format.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "eval/inspect.h"
#include "model/cpu_transformer.h"
#include "report_support.h"
#include "support/golden.h"

namespace fs = std::filesystem;

namespace seer::test {
namespace {

/// Runs in the page and leaves its findings, one a line, in an element that the dumped document shows.
constexpr const char* kCheck = R"js(
<script>
window.addEventListener('load', () => {
  const found = [];
  const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  let marks = 0;
  for (const figure of document.querySelectorAll('figure')) {
    const name = figure.querySelector('figcaption').textContent;
    const shown = [...figure.querySelectorAll('.charts .mark, .charts .line, .cell, img')].filter(
        e => e.tagName === 'IMG' ? e.complete && e.naturalWidth > 0 : e.getBoundingClientRect().width > 0);
    if (shown.length === 0) found.push('empty figure: ' + name);
    marks += shown.length;
  }
  for (const svg of document.querySelectorAll('figure svg[role=img]')) {
    const name = svg.getAttribute('aria-label'), frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
    for (const [text, box] of texts)
      if (!inside(box, frame)) found.push('cut off in "' + name + '": ' + text);
    texts.forEach(([text, box], i) => {
      for (const [other, other_box] of texts.slice(i + 1))
        if (overlap(box, other_box)) found.push('overlap in "' + name + '": ' + text + ' / ' + other);
    });
  }
  if (document.documentElement.scrollWidth > window.innerWidth) found.push('the page is wider than the window');
  const result = document.createElement('pre');
  result.textContent = '[check ' + marks + ' marks, ' + getComputedStyle(document.body).backgroundColor + ']\n' +
                       found.join('\n') + '[end]';
  document.body.append(result);
});
</script></body>)js";

std::string find_browser() {
  std::string paths = std::getenv("PATH") == nullptr ? "" : std::getenv("PATH");
  for (std::size_t begin = 0; begin <= paths.size();) {
    const std::size_t end = std::min(paths.find(':', begin), paths.size());
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
      if (const fs::path file = fs::path(paths.substr(begin, end - begin)) / name; fs::exists(file))
        return file.string();
    begin = end + 1;
  }
  return {};
}

class BrowserTest : public ReportTest {
 protected:
  void SetUp() override {
    ReportTest::SetUp();
    browser_ = find_browser();
    if (browser_.empty()) GTEST_SKIP() << "no chromium found; install the package chromium to run this test";
  }

  /// Opens the page in a window of this width; fails on any finding and returns the check's first line.
  std::string open(std::string html, int width, const std::string& flags = "") {
    html.replace(html.rfind("</body>"), 7, kCheck);
    write("page.html", html);
    const std::string page = (folder_ / "page.html").string(), log = (folder_ / "log").string();
    const std::string command = fmt::format(
        "timeout 120 '{}' --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir='{}' "
        "--window-size={},2000 --virtual-time-budget=4000 --enable-logging=stderr {} --dump-dom 'file://{}' "
        "2>'{}'",
        browser_, (folder_ / "profile").string(), width, flags, page, log);
    FILE* pipe = popen(command.c_str(), "r");
    std::string document;
    std::array<char, 65536> piece{};
    for (std::size_t got = 0; (got = fread(piece.data(), 1, piece.size(), pipe)) > 0;)
      document.append(piece.data(), got);
    EXPECT_EQ(WEXITSTATUS(pclose(pipe)), 0);
    std::ifstream lines(log);
    for (std::string line; std::getline(lines, line);)
      EXPECT_EQ(line.find("CONSOLE"), std::string::npos) << line;
    // The script's own text comes first.
    const std::size_t begin = document.rfind("[check "), end = document.rfind("[end]");
    if (begin == std::string::npos || end == std::string::npos || end < begin) {
      ADD_FAILURE() << "the check did not run";
      return {};
    }
    const std::size_t findings = document.find('\n', begin) + 1;
    EXPECT_EQ(document.substr(findings, end - findings), "") << "in a window of " << width;
    return document.substr(begin, findings - begin - 1);
  }

  std::string browser_;
};

TEST_F(BrowserTest, ReportInWideAndNarrowWindowsLightAndDark) {
  write_all();
  const std::string html = report_html({read()});
  const std::string wide = open(html, 1250);
  EXPECT_NE(wide.find("rgb(255, 255, 255)"), std::string::npos) << wide;
  EXPECT_EQ(wide.find("[check 0 marks"), std::string::npos);
  open(html, 700);
  nlohmann::json one_length = ruler_rows();
  one_length.erase(one_length.begin() + 9, one_length.end());
  open(report_html({write_and_read(one_length, "ruler.json")}), 1250);
  const std::string dark = open(html, 1250, "--blink-settings=preferredColorScheme=0");
  EXPECT_NE(dark.find("rgb(20, 23, 26)"), std::string::npos) << dark;
}

TEST_F(BrowserTest, InspectionShowsItsMaps) {
  const ModelConfig config = load_model_config(embedded_model());
  CpuTransformer model(std::make_shared<ModelWeights>(ModelWeights::load(embedded_model(), config)), config,
                       Context(1), {});
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 300; ++i) tokens.push_back(10 + (i * i * 7 + i / 3) % 4000);
  const Inspection inspection =
      inspect(model, nullptr,
              {.tokens = tokens,
               .settings = {{.selector = SelectorKind::kLocal,
                             .sparsity = {.rule = SparsityOptions::Rule::kNzRatio, .value = 0.4}}},
               .layers = {0, 1},
               .heads = {0, 1, 2}});
  const std::string html = inspect_html(inspection, {{"seed", "0"}});
  // 2 grids of 8 layers and 8 heads, and 6 pairs of images.
  EXPECT_NE(open(html, 1250).find("[check 140 marks"), std::string::npos);
  open(html, 500);
}

}  // namespace
}  // namespace seer::test
