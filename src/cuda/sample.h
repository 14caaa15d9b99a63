// Draws the next token of every sequence of a batch from its logits on the GPU.
#pragma once

#include <cstdint>

#include "core/token_draw.h"
#include "cuda/attention.h"

namespace seer::cuda {

/// out[r] = the token that draws[r] draws from logits[r, 0 .. vocab), float32; -1 where a logit is NaN, and
/// with a temperature above 0 where the largest is infinite. Pointers are device memory (draws too, so a
/// graph can be launched with new ones), the call is asynchronous; rows up to 65535, vocab up to 2^23.
/// Options are not checked. A repetition penalty or forbidden tokens are the caller's, in the logits.
///
/// Weights are rounded to multiples of 2^-40 and added up as integers, so the result does not depend on any
/// order; it is the token of draw_token() (model/sampler.h) except where the two devices' exp(), one or two
/// units in the last place apart, moves a cumulative weight across a cut.
void sample(const float* logits, std::int64_t rows, std::int64_t vocab, const TokenDraw* draws,
            std::int32_t* out, Stream stream);

}  // namespace seer::cuda
