// Drawing tokens from logits.
#pragma once

#include <cstdint>
#include <span>

#include "core/token_draw.h"
#include "seer/options.h"

namespace seer {

/// Throws Error naming the option (as the program's flag) that is out of its range.
void validate(const SamplingOptions& options);

/// Draws tokens for one sequence; the same seed, stream and logits give the same tokens on any machine.
class Sampler {
 public:
  /// `stream` tells the prompts of a batch apart.
  Sampler(const SamplingOptions& options, std::uint64_t stream);

  /// `logits` [vocab] is changed in place; `seen` are the ids that the repetition penalty looks at. Throws
  /// Error as draw_token() does.
  std::int32_t sample(std::span<float> logits, std::span<const std::int32_t> seen);
  /// sample() is next_draw() from logits that a repetition penalty has changed.
  bool changes_logits() const { return options_.repetition_penalty != 1; }
  TokenDraw next_draw();

 private:
  SamplingOptions options_;
  std::uint64_t state_;
};

/// The token that `draw` draws from `logits` [vocab]. Throws Error when a logit is NaN or, with a temperature
/// above 0, the largest one is infinite.
std::int32_t draw_token(std::span<const float> logits, const TokenDraw& draw);

}  // namespace seer
