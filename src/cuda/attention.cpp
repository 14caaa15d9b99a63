#include "cuda/attention.h"

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>

#include "core/check.h"
#include "cuda/argument_checks.h"
#include "cuda/check.h"
#include "cuda/decode.h"
#include "cuda/pooled_target.h"
#include "cuda/prefill.h"
#include "cuda/tensor_map.h"
#include "cuda/workspace.h"

namespace seer::cuda {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) cudaGetLastError();  // told here and not again by the next launch
  SEER_CHECK(status == cudaSuccess, "{}: CUDA says {} ({})", what, cudaGetErrorName(status),
             cudaGetErrorString(status));
}

void* allocate(std::int64_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const DeviceInfo device = device_info();
    fail("GPU memory: an array of {} bytes does not fit, {} of {} bytes are free", bytes, device.free_bytes,
         device.memory_bytes);
  }
  check(status, "device memory");
  return data;
}

void require(bool ok, const char* expectation, std::int64_t found) {
  SEER_CHECK(ok, "{}, found {}", expectation, found);
}

bool available(std::string* reason) {
  int device = 0;
  int major = 0;
  int minor = 0;
  const cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess) {
    if (reason != nullptr) *reason = fmt::format("no CUDA device ({})", cudaGetErrorName(status));
    return false;
  }
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "available");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "available");
  if (major == 9 && minor == 0) return true;
  if (reason != nullptr) {
    *reason = fmt::format("the kernels need compute capability 9.0 (H100, H200), the device has {}.{}", major,
                          minor);
  }
  return false;
}

DeviceInfo device_info() {
  int device = 0;
  check(cudaGetDevice(&device), "device");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "device");
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "device");
  return {.name = properties.name,
          .memory_bytes = static_cast<std::int64_t>(total),
          .free_bytes = static_cast<std::int64_t>(free)};
}

namespace {

template <class T, int kHeadDim>
void launch(const PrefillMaps& maps, const PrefillArguments& arguments, bool shared, Stream stream) {
  const auto kernel = arguments.target != nullptr ? launch_prefill<T, kHeadDim, kSharedTiles, true>
                      : shared                    ? launch_prefill<T, kHeadDim, kSharedTiles>
                                                  : launch_prefill<T, kHeadDim, 1>;
  kernel(maps, arguments, static_cast<CUstream_st*>(stream));
}

/// `target`: shared tiles make it too; nullptr: not wanted.
void prefill(const PrefillAttentionParams& p, const PooledTargetOutput* target, Stream stream) {
  check_dtype("attention_prefill", p.dtype);
  check_head_dim("attention_prefill", p.head_dim);
  SEER_CHECK(p.num_kv_heads > 0 && p.num_heads > 0 && p.num_heads % p.num_kv_heads == 0,
             "attention_prefill: num_heads must be a multiple of num_kv_heads, got {} and {}", p.num_heads,
             p.num_kv_heads);
  SEER_CHECK(p.scale > 0, "attention_prefill: scale must be positive, got {}", p.scale);
  SEER_CHECK(p.batch >= 0 && p.total_q >= 0 && p.max_rows >= 0,
             "attention_prefill: batch, total_q and max_rows must not be negative, got {}, {}, {}", p.batch,
             p.total_q, p.max_rows);
  if (p.batch == 0 || p.total_q == 0 || p.max_rows == 0) return;
  SEER_CHECK(p.total_q < (std::int64_t{1} << 31) && p.kv.total_tokens < (std::int64_t{1} << 31) &&
                 p.max_rows * p.batch * p.num_heads < (std::int64_t{1} << 31),
             "attention_prefill: tokens and batch * num_heads * max_rows must be below 2^31, got {}, {}, {}",
             p.total_q, p.kv.total_tokens, p.max_rows * p.batch * p.num_heads);
  check_aligned("q", p.q, p.q_token_stride, p.q_head_stride);
  check_aligned("out", p.out, p.out_token_stride, p.out_head_stride);
  check_aligned("k", p.kv.k, p.kv.token_stride, p.kv.head_stride);
  check_aligned("v", p.kv.v, p.kv.token_stride, p.kv.head_stride);
  SEER_CHECK(p.cu_seqlens_q != nullptr && p.cu_seqlens_k != nullptr && p.workspace != nullptr,
             "attention_prefill: cu_seqlens_q, cu_seqlens_k and workspace must be given");
  const bool paged = p.kv.page_table != nullptr;
  SEER_CHECK(
      !paged || (p.kv.page_stride > 0 && p.kv.page_stride % 8 == 0 && p.kv.num_pages > 0),
      "attention_prefill: page_stride must be a positive multiple of 8 and num_pages positive, got {} and {}",
      p.kv.page_stride, p.kv.num_pages);
  SEER_CHECK(p.mask == nullptr || p.mask_words > 0, "attention_prefill: mask_words must be positive, got {}",
             p.mask_words);
  SEER_CHECK(p.mask == nullptr || p.mask_heads == p.num_heads || p.mask_heads == p.num_kv_heads,
             "attention_prefill: mask_heads must be num_heads ({}) or num_kv_heads ({}), got {}", p.num_heads,
             p.num_kv_heads, p.mask_heads);

  const std::int64_t tokens = paged ? 64 : p.kv.total_tokens;
  const std::int64_t pages = paged ? p.kv.num_pages : 1;
  const PrefillMaps maps = {panel_map("q", p.dtype, p.q, p.head_dim, p.total_q, p.q_token_stride, p.num_heads,
                                      p.q_head_stride, 1, 0),
                            panel_map("k", p.dtype, p.kv.k, p.head_dim, tokens, p.kv.token_stride,
                                      p.num_kv_heads, p.kv.head_stride, pages, p.kv.page_stride),
                            panel_map("v", p.dtype, p.kv.v, p.head_dim, tokens, p.kv.token_stride,
                                      p.num_kv_heads, p.kv.head_stride, pages, p.kv.page_stride)};
  const PrefillArguments arguments = {
      .out = p.out,
      .lse = p.lse,
      .cu_seqlens_q = p.cu_seqlens_q,
      .cu_seqlens_k = p.cu_seqlens_k,
      .page_table = p.kv.page_table,
      .mask = p.mask,
      .counters = p.workspace,
      .out_token_stride = p.out_token_stride,
      .out_head_stride = p.out_head_stride,
      .total_q = p.total_q,
      .page_table_stride = p.kv.page_table_stride,
      .mask_words = p.mask_words,
      .max_rows = static_cast<int>(p.max_rows),
      .mask_heads = std::max(p.mask_heads, 1),
      .batch = p.batch,
      .num_heads = p.num_heads,
      .num_kv_heads = p.num_kv_heads,
      .scale = p.scale,
      .target = target != nullptr ? target->target : nullptr,
      .target_scratch = target != nullptr ? static_cast<float*>(target->workspace) : nullptr,
      .target_stride = target != nullptr ? target->stride : 0};
  const bool can_share =
      p.mask == nullptr || (p.mask_heads == p.num_kv_heads && p.num_heads / p.num_kv_heads % 2 == 0);
  SEER_CHECK(
      can_share || p.sharing != TileSharing::kShared,
      "attention_prefill: tiles can share keys only without a mask or, in KV groups of even size, with "
      "one by KV head; found groups of {} and mask_heads {}",
      p.num_heads / p.num_kv_heads, p.mask_heads);
  const bool shared = can_share && p.sharing != TileSharing::kSeparate;
  if (p.dtype == DType::kBF16) {
    (p.head_dim == 128 ? launch<__nv_bfloat16, 128> : launch<__nv_bfloat16, 64>)(maps, arguments, shared,
                                                                                 stream);
  } else {
    (p.head_dim == 128 ? launch<__half, 128> : launch<__half, 64>)(maps, arguments, shared, stream);
  }
}

}  // namespace

void attention_prefill(const PrefillAttentionParams& params, Stream stream) {
  prefill(params, nullptr, stream);
}

std::size_t pooled_target_workspace(std::int64_t stride) {
  return static_cast<std::size_t>(multiprocessors("pooled_target_workspace") * kSharedTiles * 2 * stride *
                                  64) *
         sizeof(float);
}

void attention_with_target(const PrefillAttentionParams& p, const PooledTargetOutput& output, Stream stream) {
  SEER_CHECK(p.mask == nullptr && p.batch == 1 && p.lse != nullptr && p.kv.page_table != nullptr,
             "attention_with_target: needs one sequence, dense, with paged keys and lse, got batch {}{}{}{}",
             p.batch, p.mask != nullptr ? ", a mask" : "", p.lse == nullptr ? ", no lse" : "",
             p.kv.page_table == nullptr ? ", contiguous keys" : "");
  const std::int64_t blocks = (output.q_offset + p.total_q + 63) / 64;
  SEER_CHECK(output.target != nullptr && output.q_offset >= 0 && output.q_offset % 64 == 0 &&
                 output.stride >= blocks && p.max_rows == blocks - output.q_offset / 64,
             "attention_with_target: needs a target, q_offset a multiple of 64, stride at least the {} key "
             "blocks and "
             "max_rows those of the queries, got {}, {} and {}",
             blocks, output.q_offset, output.stride, p.max_rows);
  SEER_CHECK(output.workspace != nullptr, "attention_with_target: workspace must be given");
  prefill(p, &output, stream);
}

namespace {

/// Parts per (sequence, KV head): about one part a multiprocessor when the batch is small, where the latency
/// of combining counts; four rounds of resident CTAs when it is large, to even out ragged lengths.
int decode_splits(const DecodeAttentionParams& p) {
  if (p.splits > 0) return p.splits;
  const int processors = multiprocessors("attention_decode");
  const std::int64_t lists = static_cast<std::int64_t>(p.batch) * p.num_kv_heads;
  const std::int64_t ctas = processors * (lists >= 64 ? 8 : 1);
  return static_cast<int>(std::clamp<std::int64_t>(ctas / std::max<std::int64_t>(lists, 1), 1, kMaxSplits));
}

}  // namespace

std::size_t attention_decode_workspace(const DecodeAttentionParams& p) {
  const std::int64_t heads = static_cast<std::int64_t>(decode_splits(p)) * p.batch * p.num_heads;
  return static_cast<std::size_t>(padded(std::int64_t{4} * p.batch * p.num_kv_heads) + padded(4 * heads) +
                                  4 * heads * p.head_dim);
}

void attention_decode(const DecodeAttentionParams& p, Stream stream) {
  check_dtype("attention_decode", p.dtype);
  check_head_dim("attention_decode", p.head_dim);
  SEER_CHECK(p.num_kv_heads > 0 && p.num_heads > 0 && p.num_heads % p.num_kv_heads == 0 &&
                 p.num_heads / p.num_kv_heads <= 16,
             "attention_decode: num_heads must be 1 to 16 times num_kv_heads, got {} and {}", p.num_heads,
             p.num_kv_heads);
  SEER_CHECK(p.scale > 0, "attention_decode: scale must be positive, got {}", p.scale);
  SEER_CHECK(p.batch >= 0 && p.batch < 65536 && p.splits >= 0 && p.splits <= kMaxSplits,
             "attention_decode: batch must be 0 to 65535 and splits 0 to 64, got {} and {}", p.batch,
             p.splits);
  if (p.batch == 0) return;
  check_aligned("q", p.q, p.q_batch_stride, p.q_head_stride);
  check_aligned("out", p.out, p.out_batch_stride, p.out_head_stride);
  check_aligned("k", p.kv.k, p.kv.token_stride, p.kv.head_stride);
  check_aligned("v", p.kv.v, p.kv.token_stride, p.kv.head_stride);
  SEER_CHECK(
      p.kv.page_table != nullptr && p.kv.page_stride > 0 && p.kv.page_stride % 8 == 0 && p.kv.num_pages > 0,
      "attention_decode: needs a paged cache, page_stride a positive multiple of 8 and num_pages positive, "
      "got {} and {}",
      p.kv.page_stride, p.kv.num_pages);
  SEER_CHECK(p.seqlens_k != nullptr && p.workspace != nullptr,
             "attention_decode: seqlens_k and workspace must be given");
  SEER_CHECK(p.mask == nullptr || p.mask_words > 0, "attention_decode: mask_words must be positive, got {}",
             p.mask_words);

  const auto map = [&](const char* name, const void* base) {
    return panel_map(name, p.dtype, base, p.head_dim, 64, p.kv.token_stride, p.num_kv_heads, p.kv.head_stride,
                     p.kv.num_pages, p.kv.page_stride);
  };
  const DecodeMaps maps = {map("k", p.kv.k), map("v", p.kv.v)};
  const int splits = decode_splits(p);
  const std::int64_t heads = static_cast<std::int64_t>(splits) * p.batch * p.num_heads;
  std::byte* workspace = static_cast<std::byte*>(p.workspace);
  std::byte* partial_lse = workspace + padded(std::int64_t{4} * p.batch * p.num_kv_heads);
  std::byte* partial_out = partial_lse + padded(4 * heads);
  const DecodeArguments arguments = {.q = p.q,
                                     .out = p.out,
                                     .lse = p.lse,
                                     .page_table = p.kv.page_table,
                                     .seqlens_k = p.seqlens_k,
                                     .mask = p.mask,
                                     .partial_out = reinterpret_cast<float*>(partial_out),
                                     .partial_lse = reinterpret_cast<float*>(partial_lse),
                                     .finished = reinterpret_cast<std::int32_t*>(workspace),
                                     .q_batch_stride = p.q_batch_stride,
                                     .q_head_stride = p.q_head_stride,
                                     .out_batch_stride = p.out_batch_stride,
                                     .out_head_stride = p.out_head_stride,
                                     .page_table_stride = p.kv.page_table_stride,
                                     .mask_words = p.mask_words,
                                     .splits = splits,
                                     .batch = p.batch,
                                     .num_heads = p.num_heads,
                                     .num_kv_heads = p.num_kv_heads,
                                     .scale = p.scale};
  const auto cuda_stream = static_cast<CUstream_st*>(stream);
  if (p.dtype == DType::kBF16) {
    (p.head_dim == 128 ? launch_decode<__nv_bfloat16, 128>
                       : launch_decode<__nv_bfloat16, 64>)(maps, arguments, cuda_stream);
  } else {
    (p.head_dim == 128 ? launch_decode<__half, 128> : launch_decode<__half, 64>)(maps, arguments,
                                                                                 cuda_stream);
  }
}

}  // namespace seer::cuda
