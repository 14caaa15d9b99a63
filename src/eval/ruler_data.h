// RULER's published files: samples as JSON lines, a file for each task and a folder for each length.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/ruler.h"

namespace seer {

/// One task's file. `length` is its folder's name, 0 where files are not sorted by length.
struct RulerFile {
  const RulerTask* task = nullptr;
  std::int64_t length = 0;
  std::string path;
};

/// TASK/validation.jsonl or TASK.jsonl in the folder, in its subfolder `data`, or in subfolders named by a
/// number of tokens; by length and then in the suite's order. `tasks` and `lengths` choose; empty: all there
/// are. Throws Error naming folder, task and length when one that was asked for is not there, when nothing
/// is, and when `lengths` choose among files that are not sorted by length.
std::vector<RulerFile> find_ruler_files(const std::string& folder, std::span<const RulerTask* const> tasks,
                                        std::span<const std::int64_t> lengths);

/// The file's lines: `index`, `input`, `outputs`, and where present `length`, `others`, `truncation`. A line
/// that is no such sample, or repeats an index, is there with its defect. Throws Error when the file cannot
/// be read or has no line.
std::vector<RulerSample> read_ruler_samples(const RulerFile& file);

}  // namespace seer
