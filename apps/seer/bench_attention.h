// Flags of `seer bench attention`, and its two devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct AttentionBenchFlags {
  std::string device = "cpu";
  std::vector<std::int64_t> lengths = {2048, 8192};
  std::vector<double> densities = {1.0, 0.5, 0.2, 0.1};
  int heads = 8;
  int kv_heads = 2;
  int head_dim = 128;
  std::string dtype;  // empty: float32 on the CPU, bfloat16 on the GPU
  std::vector<std::string> masks = {"random"};
  int repeats = 0;  // 0: five on the CPU, about 0.3 s of them on the GPU
  bool check = false;
  std::string json;
  // CPU
  int threads = 0;
  std::string clock = "wall";
  // GPU
  std::string op = "prefill";
  std::vector<int> batches = {1, 16};
  bool separate_tiles = false;
  int same_bits = 0;
  int splits = 0;
};

void bench_attention_cpu(const AttentionBenchFlags& flags);
/// Throws Error when there is no device to run on, or the program was built without CUDA.
void bench_attention_cuda(const AttentionBenchFlags& flags);
