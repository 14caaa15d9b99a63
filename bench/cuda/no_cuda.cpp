// The benchmarks' place in a build without CUDA.
#include "attention_bench.h"
#include "core/check.h"

namespace seer::cuda {

DeviceRoof device_roof() { return {}; }

double copy_bytes_per_second() { return 0; }

void bench_attention_prefill(const AttentionBenchOptions&, const AttentionReport&) {
  fail("bench attention: this program was built without CUDA");
}

void bench_attention_decode(const AttentionBenchOptions&, const AttentionReport&) {
  fail("bench attention: this program was built without CUDA");
}

void bench_pooled_target(const AttentionBenchOptions&, const AttentionReport&) {
  fail("bench attention: this program was built without CUDA");
}

}  // namespace seer::cuda
