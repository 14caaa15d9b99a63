// Chat templates: the subset of Jinja that published Llama-3, Qwen and plain templates use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace seer {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// Renders a chat_template as `transformers` does (trim_blocks and lstrip_blocks), without tools or
/// documents. strftime_now is left undefined, so that a prompt does not change with the day; templates that
/// ask whether it is defined fall back to their fixed date. Anything outside the supported subset,
/// raise_exception() and templates that take too long throw Error naming the line and the construct.
std::string render_chat_template(std::string_view chat_template, const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, std::string_view bos_token,
                                 std::string_view eos_token);

}  // namespace seer
