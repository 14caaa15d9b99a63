// One piece of prefill attention's work.
#pragma once

namespace seer::cuda {

inline constexpr int kBlock = 64;  // rows of a query tile and tokens of a key block

/// A query tile of kTiles heads, ready to be fetched.
struct PrefillItem {
  int head;         // of the first tile; -1: no more items
  int blocks;       // selected key blocks
  int first_token;  // row 0 of the tile in q and out; tokens before `begin` or from `end` on are not its own
  int begin;
  int end;
  int diagonal;  // the first block of the list is the diagonal one
  int sequence;
  int first_key;  // contiguous keys: row of the sequence's first
  int last;       // the diagonal block
};

/// An item as its tile `tile` has it: `head` is the tile's own.
///
/// The second tile of the group's last head (groups of an odd number of heads, dense) is the first head's in
/// the block row before: its diagonal comes one block later in the list, which stays the first tile's. Where
/// there is no such row, no token is the tile's own.
constexpr PrefillItem tile_of(const PrefillItem& item, int tile, int group) {
  PrefillItem own = item;
  own.head += tile;
  if (tile == 1 && own.head % group == 0) {
    own.head -= group;
    if (own.first_token <= own.begin) {
      own.end = own.begin;
    } else {
      own.first_token -= kBlock;
      own.last -= 1;
    }
  }
  return own;
}

}  // namespace seer::cuda
