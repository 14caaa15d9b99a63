#include "cpu/attention/prefill_amxbf16.h"

#include "cpu/attention/prefill_body.h"

namespace seer::cpu {

void attention_prefill_item_amxbf16(const PrefillItem& item) {
  const AmxTiles tiles;
  prefill::Item<AmxBf16>(item).run();
}

}  // namespace seer::cpu
