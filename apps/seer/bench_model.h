// seer bench model: flags and the two devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common.h"

struct BenchModelFlags {
  ModelFlags model;
  std::string shape;  // empty: MODEL
  std::vector<std::int64_t> lengths, contexts;
  std::vector<double> densities = {1.0, 0.2};
  std::string selector = "gate";
  int repeats = 3;
  int decode_tokens = 64;
  std::string json;
};

/// Random token ids, always the same.
std::vector<std::int32_t> bench_ids(std::int64_t count, std::int64_t vocab_size);

/// Prefill with its stages, and decode, on the GPU.
void bench_model_cuda(const BenchModelFlags& flags);
