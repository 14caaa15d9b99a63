#include "cpu/attention/prefill_body.h"
#include "cpu/simd_avx512.h"

namespace seer::cpu {

void attention_prefill_item_avx512(const PrefillItem& item) { prefill::Item<Avx512>(item).run(); }

}  // namespace seer::cpu
