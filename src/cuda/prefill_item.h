// One piece of prefill attention's work.
#pragma once

namespace seer::cuda {

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

}  // namespace seer::cuda
