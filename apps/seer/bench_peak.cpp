#include "bench_peak.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

namespace {

/// Enough independent sums to hide a latency of 4 cycles on 2 ports.
constexpr int kSums = 12;

__attribute__((target("avx512f"))) float multiply_add_512(std::int64_t rounds) {
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(1e-9f);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm512_fmadd_ps(sums[j], factor, term);
  }
  for (int j = 1; j < kSums; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx2,fma"))) float multiply_add_256(std::int64_t rounds) {
  __m256 sums[kSums];
  for (__m256& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(1e-9f);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm256_fmadd_ps(sums[j], factor, term);
  }
  for (int j = 1; j < kSums; ++j) sums[0] = _mm256_add_ps(sums[0], sums[j]);
  return _mm256_cvtss_f32(sums[0]);
}

/// Without FMA: a multiplication and an addition.
float multiply_add_128(std::int64_t rounds) {
  __m128 sums[kSums];
  for (__m128& sum : sums) sum = _mm_set1_ps(1.0f);
  const __m128 factor = _mm_set1_ps(0.999f), term = _mm_set1_ps(1e-9f);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm_add_ps(_mm_mul_ps(sums[j], factor), term);
  }
  for (int j = 1; j < kSums; ++j) sums[0] = _mm_add_ps(sums[0], sums[j]);
  return _mm_cvtss_f32(sums[0]);
}

}  // namespace

double peak_gflops(const seer::Context& context) {
  constexpr std::int64_t kRounds = 2'000'000;
  constexpr int kRuns = 20;
  const bool wide = context.isa() >= seer::CpuIsa::kAvx512;
  const bool fma = context.isa() >= seer::CpuIsa::kAvx2;
  const auto run = wide ? multiply_add_512 : fma ? multiply_add_256 : multiply_add_128;
  const double flops = 2.0 * kSums * (wide ? 16 : fma ? 8 : 4) * kRounds * context.num_threads();
  std::vector<float> results(static_cast<std::size_t>(context.num_threads()));
  double best = 0;
  for (int i = 0; i < kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    context.parallel_for(context.num_threads(), [&](std::int64_t item, int) {
      results[static_cast<std::size_t>(item)] = run(kRounds);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, flops / seconds.count() * 1e-9);
  }
  return best;
}
