// Times prefill attention on the GPU, dense and block-sparse, with a float64 check of sampled queries of
// every timed case. One JSON record a line on standard output.
//
//   cuda_attention_bench [--lengths 8192,32768] [--densities 1,0.5,0.1] [--masks
//   random,group_random,sink_local]
//                        [--op prefill|decode] [--batches 1,16] [--splits N] [--sharing separate|shared|auto]
//                        [--repeat N] [--same-bits N] [--heads H] [--kv-heads G] [--dim D]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/check.h"
#include "cuda/attention.h"
#include "cuda/device_array.h"
#include "cuda/reference.h"
#include "fill.h"
#include "ops/block_mask.h"

namespace seer::cuda {
namespace {

const std::set<std::string> kMasks = {"random", "group_random", "uneven", "dense_head", "sink_local"};

struct Options {
  std::string op = "prefill";
  std::vector<int> batches = {1, 16};  // decode
  std::vector<std::int64_t> lengths = {8192, 32768};
  std::vector<double> densities = {1, 0.5, 0.1};
  std::vector<std::string> masks = {"random"};
  std::vector<std::string> sharing = {"auto"};
  int same_bits = 0;  // prefill: further runs whose bits are compared, beside other work on the GPU
  int splits = 0;     // decode; 0: the library's choice
  int repeat = 0;     // 0: about 0.3 s of runs
  int heads = 32;
  int kv_heads = 8;
  int dim = 128;
};

/// Blocks a row keeps so that the whole causal map has about this density (the nz_ratio rule).
std::int64_t blocks_per_row(double density, std::int64_t n) {
  return std::max<std::int64_t>(1, std::llround((1 - std::sqrt(1 - density)) * static_cast<double>(n)));
}

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Bitmask [heads, n, words], saved by another program as it lies in memory.
std::vector<std::uint64_t> read_mask(const std::string& path, int heads, std::int64_t n) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  SEER_CHECK(file.good(), "--masks: cannot read {}", path);
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(heads * n * ((n + 63) / 64)));
  const auto expected = static_cast<std::int64_t>(bits.size() * sizeof(bits[0]));
  SEER_CHECK(file.tellg() == expected,
             "--masks: {} must have {} bytes (64-bit words of {} heads x {} rows), has {}", path, expected,
             heads, n, static_cast<std::int64_t>(file.tellg()));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bits.data()), expected);
  return bits;
}

/// Bitmask [heads, n, words]; every row has its diagonal block.
///   random, group_random: others drawn uniformly, as many a row as top-k keeps
///   uneven: the same, but a row's number of blocks is drawn between none and twice as many
///   dense_head: the same, but every eighth head is dense
///   sink_local: the first block and a band that ends at the diagonal
std::vector<std::uint64_t> make_mask(const std::string& kind, int heads, std::int64_t n, double density) {
  const std::int64_t words = (n + 63) / 64;
  const std::int64_t k = blocks_per_row(density, n);
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(heads * n * words), 0);
#pragma omp parallel for schedule(dynamic, 64) collapse(2)
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t r = 0; r < n; ++r) {
      std::uint64_t* row = bits.data() + (h * n + r) * words;
      const auto set = [row](std::int64_t j) { row[j / 64] |= std::uint64_t{1} << (j % 64); };
      std::uint64_t state = mix(static_cast<std::uint64_t>(h * n + r + 1) * 0x9e3779b97f4a7c15ull);
      const auto uniform = [&state] {
        state += 0x9e3779b97f4a7c15ull;
        return static_cast<double>(mix(state) >> 11) * 0x1p-53;
      };
      set(r);
      std::int64_t wanted = k - 1;
      if (kind == "uneven") wanted = std::llround(2 * uniform() * static_cast<double>(wanted));
      if (kind == "dense_head" && h % 8 == 3) wanted = r;
      wanted = std::min(wanted, r);
      if (kind == "sink_local") {
        if (wanted > 0) set(0);
        for (std::int64_t j = r - wanted + 1; j < r; ++j) set(j);
      } else {
        for (std::int64_t j = 0; j < r && wanted > 0; ++j) {
          if (uniform() * static_cast<double>(r - j) < static_cast<double>(wanted)) {
            set(j);
            --wanted;
          }
        }
      }
    }
  }
  return bits;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

template <class Run>
std::vector<double> time_runs(int repeat, const Run& run) {
  cudaEvent_t begin{};
  cudaEvent_t end{};
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  const auto once = [&] {
    check(cudaEventRecord(begin), "event");
    run();
    check(cudaEventRecord(end), "event");
    check(cudaEventSynchronize(end), "kernel");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "event");
    return static_cast<double>(ms);
  };
  once();
  const double first = once();
  if (repeat == 0) repeat = std::clamp(static_cast<int>(300 / first), 5, 200);
  std::vector<double> times;
  for (int i = 0; i < repeat; ++i) times.push_back(once());
  check(cudaEventDestroy(begin), "event");
  check(cudaEventDestroy(end), "event");
  return times;
}

double bf16_value(std::uint16_t bits) { return to_float(BFloat16{bits}); }

/// Whether `runs` runs give the same output bits while a second stream copies memory.
template <class Run>
bool same_bits(int runs, DeviceArray<std::uint16_t>& out, const Run& run) {
  cudaStream_t other{};
  check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  DeviceArray<std::uint8_t> noise(std::int64_t{1} << 29);
  DeviceArray<std::uint64_t> sums(runs);
  sums.fill_bytes(0);
  for (int i = 0; i < runs; ++i) {
    const std::size_t half = noise.bytes() / 2;
    check(cudaMemcpyAsync(noise.data() + i % 2 * half, noise.data() + (i + 1) % 2 * half, half,
                          cudaMemcpyDeviceToDevice, other),
          "noise");
    check(cudaMemsetAsync(out.data(), 0xff, out.bytes()), "poison");
    run();
    hash_words(reinterpret_cast<const std::uint32_t*>(out.data()), out.size() / 2, sums.data() + i);
  }
  check(cudaDeviceSynchronize(), "same bits");
  check(cudaStreamDestroy(other), "stream");
  const auto values = sums.download();
  return std::all_of(values.begin(), values.end(), [&](std::uint64_t x) { return x == values[0]; });
}

void run_prefill(const Options& options) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "device");
  const int heads = options.heads;
  const int kv_heads = options.kv_heads;
  const int dim = options.dim;
  for (const std::int64_t length : options.lengths) {
    const std::int64_t n = blocks_for(length);
    const std::vector<std::int32_t> cumulative = {0, static_cast<std::int32_t>(length)};
    DeviceArray<std::int32_t> cu_seqlens(cumulative);
    DeviceArray<std::int32_t> workspace(2);
    workspace.fill_bytes(0);
    DeviceArray<std::uint16_t> q(length * heads * dim), k(length * kv_heads * dim),
        v(length * kv_heads * dim);
    DeviceArray<std::uint16_t> out(length * heads * dim);
    fill_normal_bf16(q.data(), q.size(), 1);
    fill_normal_bf16(k.data(), k.size(), 2);
    fill_normal_bf16(v.data(), v.size(), 3);
    PrefillAttentionParams p;
    p.q = q.data();
    p.out = out.data();
    p.q_token_stride = p.out_token_stride = heads * dim;
    p.q_head_stride = p.out_head_stride = dim;
    p.kv = {.k = k.data(),
            .v = v.data(),
            .token_stride = kv_heads * dim,
            .head_stride = dim,
            .total_tokens = length};
    p.num_heads = heads;
    p.num_kv_heads = kv_heads;
    p.head_dim = dim;
    p.scale = 1.0f / std::sqrt(static_cast<float>(dim));
    p.cu_seqlens_q = p.cu_seqlens_k = cu_seqlens.data();
    p.total_q = length;
    p.max_rows = n;
    p.mask_words = (n + 63) / 64;
    p.workspace = workspace.data();

    for (const std::string& kind : options.masks) {
      for (const double density : options.densities) {
        DeviceArray<std::uint64_t> mask;
        const int mask_heads = kind == "group_random" || kind == "sink_local" ? kv_heads : heads;
        std::int64_t selected = heads * n * (n + 1) / 2;
        p.mask = nullptr;
        if (density < 1) {
          const auto bits = kind.starts_with("file:") ? read_mask(kind.substr(5), mask_heads, n)
                                                      : make_mask(kind, mask_heads, n, density);
          selected = 0;
          for (const std::uint64_t word : bits) selected += std::popcount(word) * (heads / mask_heads);
          mask = DeviceArray<std::uint64_t>(bits);
          p.mask = mask.data();
          p.mask_heads = mask_heads;
        }
        const double measured = static_cast<double>(selected) / static_cast<double>(heads * n * (n + 1) / 2);
        const std::int64_t step = std::max<std::int64_t>(1, length / 24) | 1;
        DeviceArray<double> exact(length * heads * dim), exact_lse(heads * length);
        attention_prefill_reference(p, step, ReferenceRounding::kNone, exact.data(), exact_lse.data(),
                                    nullptr);
        for (const std::string& sharing : options.sharing) {
          if (sharing == "shared" && density < 1) continue;
          p.sharing = sharing == "shared"     ? TileSharing::kShared
                      : sharing == "separate" ? TileSharing::kSeparate
                                              : TileSharing::kAuto;
          out.fill_bytes(0xff);
          attention_prefill(p, nullptr);
          check(cudaDeviceSynchronize(), "attention_prefill");
          double error = 0;
          std::vector<std::uint16_t> actual(static_cast<std::size_t>(heads * dim));
          std::vector<double> expected(actual.size());
          for (std::int64_t t = 0; t < length; t += step) {
            check(cudaMemcpy(actual.data(), out.data() + t * heads * dim, actual.size() * sizeof(actual[0]),
                             cudaMemcpyDeviceToHost),
                  "copy from the device");
            check(cudaMemcpy(expected.data(), exact.data() + t * heads * dim,
                             expected.size() * sizeof(double), cudaMemcpyDeviceToHost),
                  "copy from the device");
            for (std::size_t i = 0; i < actual.size(); ++i) {
              const double difference = std::abs(bf16_value(actual[i]) - expected[i]);
              if (!(difference <= error)) error = difference;
            }
          }
          const auto times = time_runs(options.repeat, [&] { attention_prefill(p, nullptr); });
          const double ms = median(times);
          const double flop = 4.0 * 64 * 64 * dim * static_cast<double>(selected);
          nlohmann::ordered_json record;
          record["op"] = "prefill";
          record["device"] = properties.name;
          record["length"] = length;
          record["heads"] = heads;
          record["kv_heads"] = kv_heads;
          record["dim"] = dim;
          record["dtype"] = "bf16";
          record["mask"] = density < 1 ? kind : "dense";
          record["density"] = measured;
          record["sharing"] = sharing;
          record["ms"] = ms;
          record["ms_min"] = *std::min_element(times.begin(), times.end());
          record["runs"] = times.size();
          record["tflops"] = flop / ms * 1e-9;
          record["max_error"] = error;
          if (options.same_bits > 0) {
            record["same_bits_runs"] = options.same_bits;
            record["same_bits"] = same_bits(options.same_bits, out, [&] { attention_prefill(p, nullptr); });
          }
          std::printf("%s\n", record.dump().c_str());
          std::fflush(stdout);
        }
      }
    }
  }
}

/// Decode over pages in random order; calls rotate over several caches, so that none is found in L2.
void run_decode(const Options& options) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "device");
  const int heads = options.heads;
  const int kv_heads = options.kv_heads;
  const int dim = options.dim;
  for (const int batch : options.batches) {
    for (const std::int64_t length : options.lengths) {
      const std::int64_t n = blocks_for(length);
      const std::int64_t page = 2 * 64 * kv_heads * dim;
      for (const double density : options.densities) {
        const std::int64_t kept = density < 1 ? std::max<std::int64_t>(1, std::llround(density * n)) : n;
        const std::int64_t bytes = batch * kept * page * 2;
        const std::int64_t copies = std::clamp<std::int64_t>((std::int64_t{1} << 29) / bytes, 1, 8);
        const std::int64_t pages = copies * batch * n;
        DeviceArray<std::uint16_t> kv(pages * page);
        fill_normal_bf16(kv.data(), kv.size(), 2);
        std::vector<std::int32_t> table(static_cast<std::size_t>(pages));
        std::iota(table.begin(), table.end(), 0);
        std::shuffle(table.begin(), table.end(), std::mt19937(1));
        const DeviceArray<std::int32_t> page_table(table);
        DeviceArray<std::uint16_t> q(batch * heads * dim), out(batch * heads * dim);
        fill_normal_bf16(q.data(), q.size(), 1);
        const DeviceArray<std::int32_t> lengths(
            std::vector<std::int32_t>(batch, static_cast<std::int32_t>(length)));
        const std::int64_t words = (n + 63) / 64;
        std::vector<std::uint64_t> bits(static_cast<std::size_t>(batch * kv_heads * words), 0);
        std::vector<std::int64_t> order(static_cast<std::size_t>(n - 1));
        std::mt19937 generator(2);
        for (int list = 0; list < batch * kv_heads; ++list) {
          std::iota(order.begin(), order.end(), 0);
          std::shuffle(order.begin(), order.end(), generator);
          order.resize(static_cast<std::size_t>(kept - 1));
          order.push_back(n - 1);
          for (const std::int64_t j : order) {
            bits[static_cast<std::size_t>(list * words + j / 64)] |= std::uint64_t{1} << (j % 64);
          }
          order.resize(static_cast<std::size_t>(n - 1));
        }
        const DeviceArray<std::uint64_t> mask(bits);
        DecodeAttentionParams p;
        p.q = q.data();
        p.out = out.data();
        p.q_batch_stride = p.out_batch_stride = heads * dim;
        p.q_head_stride = p.out_head_stride = dim;
        p.kv = {.k = kv.data(),
                .v = kv.data() + 64 * dim,
                .token_stride = dim,
                .head_stride = 2 * 64 * dim,
                .page_table = page_table.data(),
                .page_table_stride = n,
                .page_stride = page,
                .num_pages = pages};
        p.batch = batch;
        p.num_heads = heads;
        p.num_kv_heads = kv_heads;
        p.head_dim = dim;
        p.scale = 1.0f / std::sqrt(static_cast<float>(dim));
        p.seqlens_k = lengths.data();
        p.mask = density < 1 ? mask.data() : nullptr;
        p.mask_words = words;
        p.splits = options.splits;
        DeviceArray<std::uint8_t> workspace(static_cast<std::int64_t>(attention_decode_workspace(p)));
        workspace.fill_bytes(0);
        p.workspace = workspace.data();
        std::int64_t call = 0;
        const auto times = time_runs(options.repeat, [&] {
          p.kv.page_table = page_table.data() + call++ % copies * batch * n;
          attention_decode(p, nullptr);
        });
        const double ms = median(times);
        nlohmann::ordered_json record;
        record["op"] = "decode";
        record["device"] = properties.name;
        record["batch"] = batch;
        record["length"] = length;
        record["heads"] = heads;
        record["kv_heads"] = kv_heads;
        record["dim"] = dim;
        record["dtype"] = "bf16";
        record["mask"] = density < 1 ? "random" : "dense";
        record["density"] = static_cast<double>(kept) / static_cast<double>(n);
        record["ms"] = ms;
        record["ms_min"] = *std::min_element(times.begin(), times.end());
        record["runs"] = times.size();
        record["gbps"] = static_cast<double>(bytes) / ms * 1e-6;
        std::printf("%s\n", record.dump().c_str());
        std::fflush(stdout);
      }
    }
  }
}

template <class T>
std::vector<T> split(const std::string& text) {
  std::vector<T> parts;
  std::stringstream stream(text);
  std::string part;
  while (std::getline(stream, part, ',')) {
    if constexpr (std::is_same_v<T, std::string>) {
      parts.push_back(part);
    } else {
      parts.push_back(static_cast<T>(std::stod(part)));
    }
  }
  return parts;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    SEER_CHECK(i + 1 < argc, "{}: a value must follow", flag);
    const std::string value = argv[i + 1];
    if (flag == "--op") {
      options.op = value;
    } else if (flag == "--batches") {
      options.batches = split<int>(value);
    } else if (flag == "--lengths") {
      options.lengths = split<std::int64_t>(value);
    } else if (flag == "--densities") {
      options.densities = split<double>(value);
    } else if (flag == "--masks") {
      options.masks = split<std::string>(value);
      for (const std::string& kind : options.masks) {
        SEER_CHECK(kMasks.contains(kind) || kind.starts_with("file:"),
                   "--masks: random, group_random, uneven, dense_head, sink_local or file:PATH, got {}",
                   kind);
      }
    } else if (flag == "--sharing") {
      options.sharing = split<std::string>(value);
    } else if (flag == "--same-bits") {
      options.same_bits = std::stoi(value);
    } else if (flag == "--splits") {
      options.splits = std::stoi(value);
    } else if (flag == "--repeat") {
      options.repeat = std::stoi(value);
    } else if (flag == "--heads") {
      options.heads = std::stoi(value);
    } else if (flag == "--kv-heads") {
      options.kv_heads = std::stoi(value);
    } else if (flag == "--dim") {
      options.dim = std::stoi(value);
    } else {
      fail("unknown flag {}", flag);
    }
  }
  return options;
}

}  // namespace
}  // namespace seer::cuda

int main(int argc, char** argv) {
  try {
    const auto options = seer::cuda::parse(argc, argv);
    SEER_CHECK(options.op == "prefill" || options.op == "decode", "--op: prefill or decode, got {}",
               options.op);
    (options.op == "prefill" ? seer::cuda::run_prefill : seer::cuda::run_decode)(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return 0;
}
