// Input: config.json of a model.
#include "fuzz.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  seer::fuzz::expect_error_or_success(
      [&] { seer::parse_model_config(std::string(seer::fuzz::as_text(data, size)), "config.json"); });
  return 0;
}
