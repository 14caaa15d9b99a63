#include "cpu/attention/prefill_body.h"
#include "cpu/simd_avx2.h"

namespace seer::cpu {

void attention_prefill_item_avx2(const PrefillItem& item) { prefill::Item<Avx2>(item).run(); }

}  // namespace seer::cpu
