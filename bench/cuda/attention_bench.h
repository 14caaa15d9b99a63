// Timing of the CUDA attention kernels on random data, with a numerical check of every timed case.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace seer::cuda {

/// What a device can do at most, from its own attributes.
struct DeviceRoof {
  std::string name;
  double tflops = 0;  // bf16 and fp16 tensor cores of all multiprocessors at the highest clock
  double gbps = 0;    // memory bus at its highest clock
};
DeviceRoof device_roof();

/// Bytes read and written by the device's fastest of ten copies of 1 GiB, per second.
double copy_bytes_per_second();

struct AttentionBenchOptions {
  std::vector<std::int64_t> lengths;  // tokens
  std::vector<double> densities;      // 1: dense, which every length is timed at first anyway
  std::vector<std::string> masks;  // prefill; see masks.h, and kGateMask, the only one that decode looks for
  std::vector<int> batches;        // decode
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  DType dtype = DType::kBF16;
  int repeats = 0;  // timed runs; 0: about 0.3 s of them
  /// Prefill: further runs whose bits are compared, beside copies on another stream; dense only where it is
  /// among the densities.
  int same_bits = 0;
  int splits = 0;         // decode: parts of a list of blocks; 0: the library's choice
  bool separate = false;  // prefill: no sharing of keys between tiles, also where it is possible
  bool check = false;     // compare with float64
};

/// Top-k masks of a gate on random data, its time included; in decode a token budget's.
inline constexpr const char* kGateMask = "gate";

/// One timed case.
struct AttentionTiming {
  std::string op;  // "prefill", "decode" or "target"
  std::int64_t length = 0;
  int batch = 1;
  std::string mask;    // "dense", "dense+target", or one of the masks
  double density = 1;  // selected over causal blocks, counted
  double ms = 0;       // median, launch included
  double ms_least = 0;
  double ms_most = 0;
  int runs = 0;
  double tflops = 0;  // 4 x 64 x 64 x head_dim for every selected block of every query head
  /// Prefill: q, k, v, the mask and the output, each moved once. Decode: the selected keys and values.
  /// Target: q, k, v, the output, the log-sum-exp and the target.
  double gbps = 0;
  double share_of_dense = 0;     // dense time x density over the time
  double share_of_roofline = 0;  // the longer of operations and bytes at the device's roof, over the time
  /// With check: largest difference to float64 of sampled queries, and of the same maths with scores,
  /// probabilities and output rounded to the type. Target: largest relative difference of sampled rows and of
  /// all rows' sums to 1, and what rounding may make of it.
  std::optional<double> max_error, rounding_error;
  std::optional<bool> same_bits;
  /// Mask kGateMask, prefill: what pooling, the gate and the selection add to RoPE, timed without attention.
  /// ms is then the time of all of them and attention, less RoPE alone. Decode: ms is the gate's and
  /// attention's time, one layer after the other in a graph, gate_ms what the gate adds to that of attention.
  std::optional<double> gate_ms;
};

/// Called after every case.
using AttentionReport = std::function<void(const AttentionTiming&)>;

/// Times the cases of `options` on the current device. Throws Error when the options do not fit the kernels,
/// when a mask file has the wrong size, when a checked case differs from float64 by more than twice its
/// rounding error and when repeated runs differ.
void bench_attention_prefill(const AttentionBenchOptions& options, const AttentionReport& report);
/// As above, for one query token a sequence over pages in random order; successive calls use different
/// caches, so that none is found in L2. With kGateMask among the masks every density below 1 is also timed
/// with a decode gate (kMaxSelectBlocks at most).
void bench_attention_decode(const AttentionBenchOptions& options, const AttentionReport& report);
/// Dense attention with its log-sum-exp, then with the pooled target out of the same pass, for every length.
/// densities, masks, batches and same_bits are not used.
void bench_pooled_target(const AttentionBenchOptions& options, const AttentionReport& report);

}  // namespace seer::cuda
