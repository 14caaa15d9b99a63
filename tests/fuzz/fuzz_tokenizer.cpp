// Input: tokenizer.json. What is accepted must decode what it encodes without a crash.
#include <vector>

#include "fuzz.h"
#include "io/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  seer::fuzz::expect_error_or_success([&] {
    const auto tokenizer = seer::Tokenizer::parse(seer::fuzz::as_text(data, size), "tokenizer.json");
    for (const std::string_view text :
         {"", "abc ab  12\n\n'LL", "\u00e9e\u0301\u4e2d\U0001f600 <s> a<s>b", "aaaaaaaaaaaaaaaaaaaaaaaa"}) {
      const std::vector<std::int32_t> ids = tokenizer.encode(text);
      if (seer::find_invalid_utf8(tokenizer.decode(ids, /*skip_special_tokens=*/false))) std::abort();
      seer::StreamDecoder stream(tokenizer);
      for (const std::int32_t id : ids) stream.push(id);
      stream.finish();
    }
  });
  return 0;
}
