#include "cpu/attention/prefill_body.h"
#include "cpu/simd_avx512bf16.h"

namespace seer::cpu {

void attention_prefill_item_avx512bf16(const PrefillItem& item) { prefill::Item<Avx512Bf16>(item).run(); }

}  // namespace seer::cpu
