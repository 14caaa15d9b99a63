// From a LongBench sample to the tokens that the model sees: cut in the middle, chat template, special
// tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/longbench_data.h"
#include "eval/longbench_tasks.h"
#include "io/tokenizer.h"

namespace seer {

/// Tokens that the harness leaves of a model's positions for template and answer.
inline constexpr std::int64_t kLongBenchReserve = 500;

struct LongBenchText {
  std::string text;
  std::int64_t full_tokens = 0;  // of the whole prompt, special tokens included
  bool truncated = false;
};

/// Cuts a prompt of more than `max_tokens` tokens to its first and last max_tokens / 2, each decoded for
/// itself without special tokens. Tokenised again the text may have a few tokens more or less.
LongBenchText truncate_middle(const Tokenizer& tokenizer, std::string prompt, std::int64_t max_tokens);

struct LongBenchPrompt {
  std::vector<std::int32_t> ids;
  bool truncated = false;
};

/// `max_tokens` 0: no cut. Tasks that ask for it get the tokenizer's chat template where it has one; the
/// result is tokenised with special tokens, which a template may have written already, as the harness does.
/// `label` names the prompt's format in errors.
LongBenchPrompt make_longbench_prompt(const Tokenizer& tokenizer, const LongBenchTask& task,
                                      std::string_view format, const LongBenchSample& sample,
                                      std::int64_t max_tokens, const std::string& label);

/// What ends a task's continuation beside its number of tokens.
struct LongBenchStop {
  std::vector<std::int32_t> end_tokens;  // empty: the model's own
  std::int64_t min_new_tokens = 0;
};

/// samsum ends at a line end, but not at once; the other tasks at the model's own tokens.
LongBenchStop longbench_stop(const Tokenizer& tokenizer, const LongBenchTask& task);

}  // namespace seer
