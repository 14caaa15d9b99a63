// The numbers that the SeerAttention paper reports (arXiv 2410.13276), to stand beside one's own: with
// Llama-3.1-8B-Instruct and gates distilled on RedPajama, on one A100.
#pragma once

#include <array>
#include <cstdint>

namespace seer::paper {

/// PG19 perplexity with top-k gates (nz_ratio), by density and length.
struct Perplexity {
  std::int64_t length;
  std::array<double, 6> ppl;  // at kDensities
};
inline constexpr std::array<double, 6> kDensities{1.0, 0.5, 0.4, 0.3, 0.2, 0.1};
inline constexpr std::array<Perplexity, 5> kPerplexity{
    {{8192, {10.03, 10.04, 10.06, 10.09, 10.19, 10.61}},
     {16384, {9.88, 9.89, 9.89, 9.91, 9.94, 10.08}},
     {32768, {9.92, 9.92, 9.93, 9.95, 9.97, 10.04}},
     {65536, {9.97, 9.99, 9.99, 10.01, 10.04, 10.09}},
     {131072, {10.03, 10.05, 10.07, 10.15, 10.37, 10.88}}}};

/// RULER, threshold 5e-4: mean over 13 tasks by length.
struct Ruler {
  std::int64_t length;
  double score;
};
inline constexpr std::array<Ruler, 6> kRuler{
    {{4096, 95.53}, {8192, 92.71}, {16384, 92.02}, {32768, 88.49}, {65536, 83.48}, {131072, 73.37}}};

/// LongBench-E, threshold 2e-3: means over 13 tasks, by bucket and in all; and the dense model's mean.
inline constexpr std::array<double, 3> kLongBenchBuckets{55.43, 54.49, 52.69};  // 0-4k, 4-8k, 8k+
inline constexpr double kLongBench = 54.20;
inline constexpr double kLongBenchDense = 54.07;

/// Prefill attention with gate and selection, over FlashAttention-2, by length and sparsity.
struct KernelSpeedUp {
  std::int64_t length;
  std::array<double, 5> speed_up;  // at kSparsities
};
inline constexpr std::array<double, 5> kSparsities{0.5, 0.6, 0.7, 0.8, 0.9};
inline constexpr std::array<KernelSpeedUp, 3> kKernelSpeedUp{{{8192, {1.56, 1.76, 2.16, 2.92, 4.15}},
                                                              {32768, {1.72, 2.12, 2.76, 4.02, 7.37}},
                                                              {131072, {1.55, 1.92, 2.53, 3.78, 7.34}}}};

}  // namespace seer::paper
