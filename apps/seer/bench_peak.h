// What the cores can do at most, measured: the roof that benchmarks compare with.
#pragma once

#include "core/context.h"

/// Float32 multiply-adds of the context's instruction set on all its threads, in GFLOP/s; the best of several
/// short runs.
double peak_gflops(const seer::Context& context);
