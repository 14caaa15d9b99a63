#include "measure.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/check.h"
#include "cuda/reference.h"
#include "device_fill.h"

namespace seer::cuda {

DeviceRoof device_roof() {
  int device = 0;
  check(cudaGetDevice(&device), "device");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "device");
  const auto attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "device");
    return static_cast<double>(value);
  };
  constexpr double kFlopPerClock = 4096;  // of a multiprocessor of compute capability 9.0, bf16 or fp16
  const double clock = attribute(cudaDevAttrClockRate) * 1e3;
  const double memory_clock = attribute(cudaDevAttrMemoryClockRate) * 1e3;
  const double memory_bytes = attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
  return {.name = properties.name,
          .tflops = properties.multiProcessorCount * kFlopPerClock * clock * 1e-12,
          .gbps = 2 * memory_clock * memory_bytes * 1e-9};
}

double copy_bytes_per_second() {
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  DeviceArray<std::byte> from(kBytes), to(kBytes);
  from.fill_bytes(1);
  AttentionTiming timing;
  const auto copy = [&] {
    check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice), "copy");
  };
  time_runs(10, copy, timing);
  return 2.0 * kBytes / (timing.ms_least * 1e-3);
}

Graph::Graph(const std::function<void(Stream)>& work) {
  cudaStream_t stream{};
  cudaGraph_t graph{};
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "graph");
  work(stream);
  check(cudaStreamEndCapture(stream, &graph), "graph");
  check(cudaGraphInstantiate(&executable_, graph, 0), "graph");
  check(cudaGraphDestroy(graph), "graph");
  check(cudaStreamDestroy(stream), "stream");
}

Graph::~Graph() { cudaGraphExecDestroy(executable_); }

void Graph::launch(Stream stream) const {
  check(cudaGraphLaunch(executable_, static_cast<cudaStream_t>(stream)), "graph");
}

void time_runs(int repeats, const std::function<void()>& run, AttentionTiming& timing) {
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
  const double warm = once();
  if (repeats == 0) repeats = std::clamp(static_cast<int>(300 / warm), 5, 200);
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) times.push_back(once());
  check(cudaEventDestroy(begin), "event");
  check(cudaEventDestroy(end), "event");
  std::sort(times.begin(), times.end());
  timing.ms = times[times.size() / 2];
  timing.ms_least = times.front();
  timing.ms_most = times.back();
  timing.runs = repeats;
}

void rate(const DeviceRoof& roof, double flop, double bytes, double dense_ms, AttentionTiming& timing) {
  const double seconds = timing.ms * 1e-3;
  timing.tflops = flop / seconds * 1e-12;
  timing.gbps = bytes / seconds * 1e-9;
  timing.share_of_dense = (dense_ms > 0 ? dense_ms : timing.ms) * timing.density / timing.ms;
  timing.share_of_roofline = std::max(timing.tflops / roof.tflops, timing.gbps / roof.gbps);
}

void check_output(const PrefillAttentionParams& params, std::int64_t token_step,
                  const DeviceArray<std::uint16_t>& out, AttentionTiming& timing) {
  const std::int64_t row = static_cast<std::int64_t>(params.num_heads) * params.head_dim;
  const auto row_size = static_cast<std::size_t>(row);
  DeviceArray<double> values(params.total_q * row);
  DeviceArray<double> lse(params.num_heads * params.total_q);
  const auto sampled = [&](ReferenceRounding rounding) {
    attention_prefill_reference(params, token_step, rounding, values.data(), lse.data(), nullptr);
    std::vector<double> rows;
    for (std::int64_t t = 0; t < params.total_q; t += token_step) {
      rows.resize(rows.size() + row_size);
      check(cudaMemcpy(rows.data() + rows.size() - row_size, values.data() + t * row,
                       row_size * sizeof(double), cudaMemcpyDeviceToHost),
            "copy from the device");
    }
    return rows;
  };
  const std::vector<double> exact = sampled(ReferenceRounding::kNone);
  const std::vector<double> rounded = sampled(ReferenceRounding::kStorage);
  std::vector<std::uint16_t> bits(row_size);
  std::vector<float> actual(row_size);
  double error = 0;
  double rounding_error = 0;
  std::size_t i = 0;
  for (std::int64_t t = 0; t < params.total_q; t += token_step) {
    check(cudaMemcpy(bits.data(), out.data() + t * row, row_size * sizeof(bits[0]), cudaMemcpyDeviceToHost),
          "copy from the device");
    widen_to_float(params.dtype, bits.data(), actual.data(), row);
    for (const float x : actual) {
      const double difference = std::abs(x - exact[i]);
      if (!(difference <= error)) error = difference;  // keeps a NaN
      if (std::isnan(difference)) break;
      rounding_error = std::max(rounding_error, std::abs(rounded[i] - exact[i]));
      ++i;
    }
    if (std::isnan(error)) break;
  }
  timing.max_error = error;
  timing.rounding_error = rounding_error;
}

void require_right(const AttentionTiming& timing) {
  const auto name = [&timing] {
    return fmt::format("bench attention: {}, {} tokens, batch {}, mask {}, density {:.3f}", timing.op,
                       timing.length, timing.batch, timing.mask, timing.density);
  };
  SEER_CHECK(
      !timing.max_error || *timing.max_error <= 2 * *timing.rounding_error,
      "{}: expected the output within {:.3g} of float64 (twice what rounding to the type gives), found "
      "a difference of {:.3g}",
      name(), 2 * *timing.rounding_error, *timing.max_error);
  SEER_CHECK(timing.same_bits.value_or(true), "{}: expected the same bits in every run, found others",
             name());
}

bool same_bits(int runs, DeviceArray<std::uint16_t>& out, const std::function<void()>& run) {
  cudaStream_t other{};
  check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  DeviceArray<std::uint8_t> noise(std::int64_t{1} << 29);
  DeviceArray<std::uint64_t> sums(runs);
  sums.fill_bytes(0);
  const std::size_t half = noise.bytes() / 2;
  for (int i = 0; i < runs; ++i) {
    check(cudaMemcpyAsync(noise.data() + i % 2 * half, noise.data() + (i + 1) % 2 * half, half,
                          cudaMemcpyDeviceToDevice, other),
          "noise");
    out.fill_bytes(0xff);
    run();
    hash_words(reinterpret_cast<const std::uint32_t*>(out.data()), out.size() / 2, sums.data() + i);
  }
  check(cudaDeviceSynchronize(), "same bits");
  check(cudaStreamDestroy(other), "stream");
  const auto values = sums.download();
  return std::all_of(values.begin(), values.end(), [&](std::uint64_t x) { return x == values[0]; });
}

}  // namespace seer::cuda
