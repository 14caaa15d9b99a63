// Under the sanitizers GCC 12 takes parts of std::regex for uninitialised (PR 105562).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "report_support.h"

#include <fmt/format.h>

#include <fstream>
#include <regex>

namespace fs = std::filesystem;

namespace seer::test {

using nlohmann::json;

json perplexity_rows() {
  json rows = json::array();
  for (const std::int64_t length : {4096, 8192}) {
    for (const char* selector : {"dense", "gate", "local"}) {
      for (const double value : {0.5, 0.2, 0.1}) {
        const bool dense = std::string_view(selector) == "dense";
        const bool local = std::string_view(selector) == "local";
        if (dense && value != 0.5) continue;
        const double density = dense ? 1.0 : value * 0.97;
        rows.push_back({{"length", length},
                        {"selector", selector},
                        {"rule", dense ? "dense" : "nz_ratio"},
                        {"value", dense ? 1.0 : value},
                        {"density", density},
                        {"ppl", 6.0 + (1 - density) * static_cast<double>(length) / 4096 * (local ? 2 : 1) -
                                    (dense ? 0 : 0.6)},
                        {"nll", {1.7, 1.9}},
                        {"prefill_seconds", 0.5 + density},
                        {"select_seconds", dense ? 0.0 : 0.01},
                        {"attention_seconds", density},
                        {"version", "0.1.0"},
                        {"command", "seer eval ppl --data 'a & <b>'"},
                        {"seed", 0}});
      }
    }
  }
  return rows;
}

namespace {

json task_row(const char* task, const char* selector, double score, double density) {
  const bool dense = std::string_view(selector) == "dense";
  return {{"task", task},
          {"selector", selector},
          {"rule", dense ? "dense" : "threshold"},
          {"value", dense ? 1.0 : 5e-4},
          {"score", score},
          {"density", density},
          {"samples", 25},
          {"failed", 0},
          {"ttft_seconds", 0.1 + density},
          {"select_seconds", 0.01},
          {"attention_seconds", density},
          {"version", "0.1.0"},
          {"command", "seer eval"}};
}

}  // namespace

json ruler_rows() {
  json rows = json::array();
  for (const std::int64_t length : {4096, 8192}) {
    for (const char* selector : {"dense", "gate", "local"}) {
      double score = selector[0] == 'd' ? 96 : selector[0] == 'g' ? 92 : 40;
      for (const char* task : {"niah_single_1", "vt", "qa_1"}) {
        rows.push_back(task_row(task, selector, score, selector[0] == 'd' ? 1.0 : 0.3));
        rows.back()["length"] = length;
        score -= 4;
      }
    }
  }
  return rows;
}

std::string needle_lines() {
  std::string lines;
  for (const std::int64_t length : {4096, 8192}) {
    for (const double depth : {0.0, 50.0, 100.0}) {
      const json line{{"key", "k"},       {"task", "niah_single_1"}, {"id", fmt::format("{}", depth)},
                      {"length", length}, {"selector", "gate"},      {"rule", "threshold"},
                      {"value", 5e-4},    {"depth", depth},          {"score", 100 - depth}};
      json old = line;  // of an earlier build
      old["score"] = 7;
      lines += old.dump() + "\n" + line.dump() + "\n";
    }
  }
  return lines + json{{"key", "k"}, {"task", "cwe"}, {"selector", "gate"}}.dump() + "\n";
}

json longbench_rows() {
  json rows = json::array();
  for (const char* selector : {"dense", "gate", "local"}) {
    const double score = selector[0] == 'd' ? 50 : selector[0] == 'g' ? 48.25 : 31;
    for (const char* task : {"qasper", "trec"}) {
      rows.push_back(task_row(task, selector, score, selector[0] == 'd' ? 1.0 : 0.4));
      const double density = rows.back()["density"];
      rows.back()["benchmark"] = "LongBench-E";
      rows.back()["scores"] = {{"0-4k", score + 1}, {"4-8k", score}, {"8k+", score - 1}};
      rows.back()["densities"] = {{"0-4k", density}, {"4-8k", density}, {"8k+", density / 2}};
      if (task[0] == 't') rows.back()["scores"]["8k+"] = rows.back()["densities"]["8k+"] = nullptr;
    }
  }
  return rows;
}

json inspect_rows() {
  return {{{"length", 4096},
           {"selector", "gate"},
           {"rule", "adaptive"},
           {"value", 0.1},
           {"density", 0.11},
           {"recall", 0.9},
           {"oracle_recall", 0.95},
           {"head_density", {{0.1, 0.2, 0.05}, {0.1, 0.1, 0.11}}},
           {"head_recall", {{0.9, 0.8, 0.95}, {0.91, 0.92, 0.93}}},
           {"head_oracle_recall", {{0.9, 0.8, 0.95}, {0.91, 0.92, 0.93}}}}};
}

json kernel_records() {
  json records = json::array();
  const auto add = [&](const char* peer, const char* mask, double density, double ms, int heads = 32) {
    json record{{"op", "prefill"}, {"device", "GPU"}, {"length", 8192}, {"heads", heads},     {"kv_heads", 8},
                {"dim", 128},      {"dtype", "bf16"}, {"mask", mask},   {"density", density}, {"ms", ms}};
    if (*peer != '\0') record["peer"] = peer;
    records.push_back(record);
  };
  add("cudnn", "dense", 1, 0.9);
  add("cudnn", "dense", 1, 1.1);
  add("flash", "dense", 1, 2.0);
  add("", "dense", 1, 1.0);
  add("", "random", 0.5, 0.5);
  add("", "random", 0.1, 0.125);
  add("", "saved:masks/layer_00.mask", 0.1, 0.1);
  add("", "random", 0.1, 0.05, 8);
  records.push_back({{"op", "error"}, {"peer", "flex"}, {"device", "GPU"}});
  return records;
}

void ReportTest::SetUp() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  folder_ = fs::path(::testing::TempDir()) / (std::string("seer_report_") + info->name());
  fs::remove_all(folder_);
  fs::create_directories(folder_);
}

void ReportTest::TearDown() { fs::remove_all(folder_); }

void ReportTest::write(const std::string& name, const std::string& text) const {
  std::ofstream(folder_ / name) << text;
}

void ReportTest::write_all() const {
  write("ppl.json", perplexity_rows().dump());
  write("ruler.json", ruler_rows().dump());
  write("ruler.samples.jsonl", needle_lines());
  write("longbench.json", longbench_rows().dump());
  write("inspect.json", inspect_rows().dump());
  write("cuda_attention_gpu.json", kernel_records().dump());
}

ReportRun ReportTest::write_and_read(const json& rows, const std::string& name) const {
  write(name, rows.dump());
  return read();
}

void expect_well_formed_and_alone(const std::string& html) {
  static const std::regex tag(R"(<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:\s+[a-zA-Z:-]+="[^"<]*")*)\s*(/?)>)");
  std::vector<std::string> open;
  std::size_t position = html.find('\n') + 1;
  ASSERT_EQ(html.substr(0, position), "<!DOCTYPE html>\n");
  while ((position = html.find('<', position)) != std::string::npos) {
    std::smatch match;
    // std::regex recurses over long attributes (images); 4 kB hold every other tag.
    const std::size_t image =
        html.compare(position, 10, "<img src=\"") == 0 ? html.find('"', position + 10) : 0;
    const std::string piece =
        image != 0 ? "<img" + html.substr(image + 1, 4096) : html.substr(position, 4096);
    ASSERT_TRUE(std::regex_search(piece, match, tag, std::regex_constants::match_continuous))
        << html.substr(position, 120);
    if (match[1].length() > 0) {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(open.back(), match[2].str()) << html.substr(position, 120);
      open.pop_back();
    } else if (match[4].length() == 0) {
      open.push_back(match[2].str());
    }
    ++position;
  }
  EXPECT_TRUE(open.empty());
  static const std::regex bare_ampersand("&(?!(amp|lt|gt|quot);)");
  EXPECT_FALSE(std::regex_search(html, bare_ampersand));
  for (const char* outside : {"http:", "https:", "href=", "url(", "@import", "<script"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  EXPECT_EQ(count(html, "src="), count(html, "src=\"data:image/png;base64,"));
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

}  // namespace seer::test
