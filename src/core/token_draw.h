// How one token is drawn from its logits.
#pragma once

#include <cstdint>

namespace seer {

/// One draw of one sequence; the same bytes on the host and on a GPU. Tokens are ordered by their distance to
/// the largest logit (float32; of equals the smaller id is first) and token i weighs exp(-distance_i /
/// temperature). Kept are the first top_k; of these the fewest that reach top_p of their weight; of these the
/// ones that weigh at least min_p. Drawn is the first one up to which the kept ones weigh more than uniform
/// times all of them.
struct TokenDraw {
  double uniform = 0;      // in [0, 1)
  float temperature = 0;   // 0: the largest logit, the first of equals; the rest is not looked at
  float top_p = 1;         // above 0; 1: off
  float min_p = 0;         // 0 to 1; 0: off
  std::int32_t top_k = 0;  // 0: off
};

}  // namespace seer
