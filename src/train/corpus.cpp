#include "train/corpus.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <string_view>

#include "core/check.h"

namespace seer {
namespace {

std::int64_t parse_count(std::string_view text, const std::string& flag) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  SEER_CHECK(error == std::errc() && end == text.data() + text.size() && value > 0,
             "{}: expected LENGTH:COUNT,... with positive numbers, found \"{}\"", flag, text);
  return value;
}

/// Planned lengths in an order that mixes them: each next one is that which lags furthest behind its share.
std::vector<std::int64_t> mixed_lengths(const std::vector<SequencePlan>& plan) {
  std::int64_t total = 0;
  for (const SequencePlan& part : plan) total += part.count;
  std::vector<std::int64_t> lengths, taken(plan.size(), 0);
  for (std::int64_t i = 0; i < total; ++i) {
    std::size_t best = 0;
    double most = -1;
    for (std::size_t p = 0; p < plan.size(); ++p) {
      const double lag = static_cast<double>((i + 1) * plan[p].count) / static_cast<double>(total) -
                         static_cast<double>(taken[p]);
      if (taken[p] < plan[p].count && lag > most) most = lag, best = p;
    }
    ++taken[best];
    lengths.push_back(plan[best].tokens);
  }
  return lengths;
}

/// A stretch of a document: sequences start at these.
struct Piece {
  std::string_view text;
  std::span<const std::int32_t> ids;

  /// Share of the text, in one unit for texts and ids.
  double weight() const {
    constexpr double kBytesPerId = 4;
    return static_cast<double>(text.size()) + kBytesPerId * static_cast<double>(ids.size());
  }
};

/// Long documents are cut, texts after a line end where there is one; finer where there is little text for
/// `num_sequences`, since each takes whole pieces.
std::vector<Piece> cut_pieces(const std::vector<Document>& documents, std::size_t num_sequences) {
  std::size_t total = 0;
  for (const Document& document : documents) total += document.text.size() + 4 * document.input_ids.size();
  const std::size_t max_bytes = std::clamp<std::size_t>(total / (4 * num_sequences), 256, 1 << 15);
  const std::size_t max_ids = max_bytes / 4;
  std::vector<Piece> pieces;
  for (const Document& document : documents) {
    const std::span<const std::int32_t> ids = document.input_ids;
    for (std::size_t first = 0; first < ids.size(); first += max_ids)
      pieces.push_back({.text = {}, .ids = ids.subspan(first, std::min(max_ids, ids.size() - first))});
    if (!ids.empty()) continue;
    std::string_view rest = document.text;
    while (!rest.empty()) {
      const std::size_t line_end = rest.find('\n', std::min(max_bytes, rest.size() - 1));
      const std::size_t size = line_end == std::string_view::npos ? rest.size() : line_end + 1;
      pieces.push_back({.text = rest.substr(0, size), .ids = {}});
      rest.remove_prefix(size);
    }
  }
  return pieces;
}

}  // namespace

std::vector<SequencePlan> parse_sequence_plan(const std::string& text, const std::string& flag) {
  std::vector<SequencePlan> plan;
  std::string_view rest = text;
  while (true) {
    const std::string_view part = rest.substr(0, rest.find(','));
    const std::size_t colon = part.find(':');
    plan.push_back({parse_count(part.substr(0, colon), flag),
                    colon == std::string_view::npos ? 1 : parse_count(part.substr(colon + 1), flag)});
    if (part.size() == rest.size()) return plan;
    rest.remove_prefix(part.size() + 1);
  }
}

std::vector<std::vector<std::int32_t>> cut_sequences(const std::vector<Document>& documents,
                                                     const Tokenizer& tokenizer,
                                                     const std::vector<SequencePlan>& plan) {
  const std::vector<std::int64_t> lengths = mixed_lengths(plan);
  const std::vector<Piece> pieces = cut_pieces(documents, lengths.size());
  double total_tokens = 0, total_weight = 0;
  for (const std::int64_t length : lengths) total_tokens += static_cast<double>(length);
  for (const Piece& piece : pieces) total_weight += piece.weight();

  std::vector<std::vector<std::int32_t>> sequences;
  std::size_t next = 0;          // piece to start at
  double passed = 0, asked = 0;  // weight before `next`; tokens of the sequences so far
  for (const std::int64_t length : lengths) {
    while (next < pieces.size() && passed < asked / total_tokens * total_weight)
      passed += pieces[next++].weight();
    std::vector<std::int32_t> ids;
    if (tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
    while (next < pieces.size() && static_cast<std::int64_t>(ids.size()) < length) {
      const Piece& piece = pieces[next++];
      passed += piece.weight();
      if (piece.text.empty()) {
        ids.insert(ids.end(), piece.ids.begin(), piece.ids.end());
      } else {
        const std::vector<std::int32_t> more = tokenizer.encode(piece.text, false);
        ids.insert(ids.end(), more.begin(), more.end());
      }
    }
    SEER_CHECK(
        static_cast<std::int64_t>(ids.size()) >= length,
        "data: expected text for {} sequences of {:.0f} tokens in all, found too little after {}; give "
        "more --data or plan fewer --sequences",
        lengths.size(), total_tokens, sequences.size());
    ids.resize(static_cast<std::size_t>(length));
    sequences.push_back(std::move(ids));
    asked += static_cast<double>(length);
  }
  return sequences;
}

}  // namespace seer
