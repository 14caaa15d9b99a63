// AdamW without weight decay (arXiv 1412.6980), and the learning rate's schedule.
#pragma once

#include <cstdint>

#include "ops/adam_factors.h"

namespace seer {

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

/// What one update's options, number (from 1) and learning rate come to.
AdamFactors adam_factors(const AdamOptions& options, std::int64_t step, double learning_rate);

/// One update of `size` parameters; `step` counts from 1. m and v are the running moments.
void adam_update(const AdamOptions& options, std::int64_t step, double learning_rate, std::int64_t size,
                 const float* gradient, float* parameters, float* m, float* v);

/// Linear from 0 over `warmup` steps, then half a cosine down to 0 at `steps`; `step` counts from 1.
double cosine_learning_rate(double peak, std::int64_t warmup, std::int64_t steps, std::int64_t step);

}  // namespace seer
