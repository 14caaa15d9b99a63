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

/// Renders a chat_template. Anything outside the supported subset throws Error naming the construct.
std::string render_chat_template(std::string_view chat_template, const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt, std::string_view bos_token,
                                 std::string_view eos_token);

}  // namespace seer
