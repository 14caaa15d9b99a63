// Texts to evaluate or train on: a text file, a jsonl file with `text` or `input_ids`, or a folder of files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer {

/// One document: text, or ids already.
struct Document {
  std::string name;  // file, or file:line
  std::string text;
  std::vector<std::int32_t> input_ids;  // non-empty: used instead of text
};

/// Reads `path`: .jsonl (one object a line with `text` or `input_ids`), a folder (all regular files below it
/// in sorted path order; non-text files, hidden ones and invalid UTF-8 are skipped when `skip_bad` and are
/// errors otherwise; `extensions` such as {".py"} limits which), or one text file. Throws Error naming file
/// and line.
std::vector<Document> read_documents(const std::string& path, const std::vector<std::string>& extensions = {},
                                     bool skip_bad = false);

}  // namespace seer
