// Training sequences out of documents.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/documents.h"
#include "io/tokenizer.h"

namespace seer {

/// How many sequences of which length.
struct SequencePlan {
  std::int64_t tokens = 0;
  std::int64_t count = 0;
};

/// "8192:60,16384:20" (a bare length counts once). Throws Error naming `flag`.
std::vector<SequencePlan> parse_sequence_plan(const std::string& text, const std::string& flag);

/// Cuts sequences of the planned lengths out of the documents, spread evenly over all of them, never
/// overlapping: each starts where a document (or a piece of some 32 KB of a long one) starts and runs on over
/// the text that follows. A sequence begins with BOS where the tokenizer has one. Lengths are mixed, so that
/// any stretch of the result holds all of them. Throws Error when the documents hold too little text.
std::vector<std::vector<std::int32_t>> cut_sequences(const std::vector<Document>& documents,
                                                     const Tokenizer& tokenizer,
                                                     const std::vector<SequencePlan>& plan);

}  // namespace seer
