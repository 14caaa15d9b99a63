// Input: a chat template.
#include "fuzz.h"
#include "io/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  seer::fuzz::expect_error_or_success([&] {
    seer::render_chat_template(seer::fuzz::as_text(data, size),
                               {{"system", " s\u00e9 "}, {"user", "u"}, {"assistant", "<think>a</think>b"}},
                               /*add_generation_prompt=*/true, "<s>", "</s>");
  });
  return 0;
}
