#include "io/byte_pair_encoder.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <tuple>

#include "core/check.h"

namespace seer {
namespace {

constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no pair: ids are not negative

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

/// Heap order: std's heaps have the largest in front.
constexpr auto kLater = [](const auto& a, const auto& b) {
  return std::tie(a.rank, a.position) > std::tie(b.rank, b.position);
};

}  // namespace

BytePairEncoder::BytePairEncoder(const std::array<std::int32_t, 256>& byte_ids,
                                 const std::vector<Merge>& merges)
    : byte_ids_(byte_ids), slots_(std::bit_ceil(merges.size() * 2 + 2), Slot{kEmpty, 0, 0}) {
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t key = key_of(merges[rank].left, merges[rank].right);
    slots_[slot_of(key)] = {key, static_cast<std::int32_t>(rank), merges[rank].merged};
  }
}

std::size_t BytePairEncoder::slot_of(std::uint64_t key) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = (key * 0x9e3779b97f4a7c15u) >> 32 & mask;
  while (slots_[slot].key != key && slots_[slot].key != kEmpty) slot = (slot + 1) & mask;
  return slot;
}

void BytePairEncoder::push_candidate(Scratch& scratch, std::int32_t position) const {
  if (position < 0) return;
  const auto& symbol = scratch.symbols[static_cast<std::size_t>(position)];
  if (symbol.next < 0) return;
  const std::int32_t right = scratch.symbols[static_cast<std::size_t>(symbol.next)].id;
  const std::uint64_t key = key_of(symbol.id, right);
  const Slot& slot = slots_[slot_of(key)];
  if (slot.key != key) return;
  scratch.heap.push_back({slot.rank, position, symbol.id, right, slot.merged});
  std::push_heap(scratch.heap.begin(), scratch.heap.end(), kLater);
}

void BytePairEncoder::encode(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const {
  SEER_CHECK(word.size() < std::numeric_limits<std::int32_t>::max(), "a word of {} bytes is too long",
             word.size());
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  const auto size = static_cast<std::int32_t>(word.size());
  for (std::int32_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
    SEER_CHECK(byte_ids_[byte] >= 0, "the vocabulary has no token for byte 0x{:02x} of the text", byte);
    symbols.push_back({byte_ids_[byte], i - 1, i + 1 < size ? i + 1 : -1});
  }
  for (std::int32_t i = 0; i + 1 < size; ++i) push_candidate(scratch, i);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), kLater);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    auto& left = symbols[static_cast<std::size_t>(best.position)];
    if (left.id != best.left || left.next < 0) continue;  // one of the two was joined since
    auto& right = symbols[static_cast<std::size_t>(left.next)];
    if (right.id != best.right) continue;
    left.id = best.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.position;
    push_candidate(scratch, left.previous);
    push_candidate(scratch, best.position);
  }
  for (std::int32_t i = 0; i >= 0 && size > 0; i = symbols[static_cast<std::size_t>(i)].next)
    ids.push_back(symbols[static_cast<std::size_t>(i)].id);
}

}  // namespace seer
