#include "eval/longbench_prompt.h"

#include <optional>
#include <span>
#include <utility>

#include "core/check.h"
#include "io/chat_template.h"

namespace seer {
namespace {

std::string text_of(const Tokenizer& tokenizer, const std::optional<std::int32_t>& id) {
  return id ? tokenizer.token_bytes(*id) : std::string();
}

}  // namespace

LongBenchText truncate_middle(const Tokenizer& tokenizer, std::string prompt, std::int64_t max_tokens) {
  SEER_CHECK(max_tokens >= 2, "LongBench: expected room for 2 prompt tokens or more, found {}", max_tokens);
  const std::vector<std::int32_t> ids = tokenizer.encode(prompt);
  const auto full_tokens = static_cast<std::int64_t>(ids.size());
  if (full_tokens <= max_tokens) return {std::move(prompt), full_tokens, false};
  const auto half = static_cast<std::size_t>(max_tokens / 2);
  const std::span all(ids);
  return {tokenizer.decode(all.first(half)) + tokenizer.decode(all.last(half)), full_tokens, true};
}

LongBenchPrompt make_longbench_prompt(const Tokenizer& tokenizer, const LongBenchTask& task,
                                      std::string_view format, const LongBenchSample& sample,
                                      std::int64_t max_tokens, const std::string& label) {
  LongBenchText prompt{.text = format_longbench_prompt(format, sample.fields, label)};
  if (max_tokens > 0) prompt = truncate_middle(tokenizer, std::move(prompt.text), max_tokens);
  if (task.chat && !tokenizer.chat_template().empty())
    prompt.text = render_chat_template(tokenizer.chat_template(), {{"user", prompt.text}},
                                       /*add_generation_prompt=*/true, text_of(tokenizer, tokenizer.bos_id()),
                                       text_of(tokenizer, tokenizer.eos_id()));
  return {tokenizer.encode(prompt.text), prompt.truncated};
}

LongBenchStop longbench_stop(const Tokenizer& tokenizer, const LongBenchTask& task) {
  if (task.name != "samsum") return {};
  LongBenchStop stop{.min_new_tokens = 1};
  if (tokenizer.eos_id()) stop.end_tokens.push_back(*tokenizer.eos_id());
  stop.end_tokens.push_back(tokenizer.encode("\n", /*add_special_tokens=*/false).back());
  return stop;
}

}  // namespace seer
