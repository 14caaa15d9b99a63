#include "cpu/attention/prefill_body.h"
#include "cpu/simd_portable.h"

namespace seer::cpu {

void attention_prefill_item_portable(const PrefillItem& item) { prefill::Item<Portable>(item).run(); }

}  // namespace seer::cpu
