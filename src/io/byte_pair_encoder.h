// Byte pair encoding of one word.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace seer {

/// Joins a word's bytes by merges, always the one of lowest rank and of these the leftmost, until none
/// applies.
class BytePairEncoder {
 public:
  struct Merge {
    std::int32_t left, right, merged;
  };

  /// Working memory that calls reuse; one a thread.
  class Scratch {
    friend class BytePairEncoder;
    struct Symbol {
      std::int32_t id;  // -1: joined to the one before
      std::int32_t previous, next;
    };
    struct Candidate {
      std::int32_t rank, position, left, right, merged;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  BytePairEncoder() = default;
  /// `byte_ids`: the token of each byte, -1 where there is none; `merges` by rising rank, a repeated pair
  /// counts where it stands last.
  BytePairEncoder(const std::array<std::int32_t, 256>& byte_ids, const std::vector<Merge>& merges);

  /// Appends the ids of `word`. Throws Error for a byte that has no token and for words of 2^31 bytes.
  void encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const;

 private:
  /// Slot of an open-addressing table; `key` is left << 32 | right.
  struct Slot {
    std::uint64_t key;
    std::int32_t rank, merged;
  };
  std::size_t slot_of(std::uint64_t key) const;
  void push_candidate(Scratch& scratch, std::int32_t position) const;

  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<Slot> slots_;
};

}  // namespace seer
