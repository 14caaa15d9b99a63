#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/gate_train_kernels.h"
#include "cuda/lanes.cuh"

namespace seer::cuda {

void check(cudaError_t status, const char* what);

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

unsigned blocks_of(std::int64_t items, std::int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

__device__ std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/// One pair of channels a thread.
__global__ void rope_kernel(const float* x, const float* cos, const float* sin, std::int64_t heads,
                            std::int64_t n, int half, float direction, float* out) {
  const std::int64_t item = global_thread();
  if (item >= heads * n * half) return;
  const std::int64_t row = item / half;  // of all heads
  const std::int64_t d = item - row * half;
  const std::int64_t at = row * 2 * half + d;
  const std::int64_t angle = row % n * half + d;
  const float low = x[at];
  const float high = x[at + half];
  const float c = cos[angle];
  const float s = sin[angle] * direction;
  out[at] = low * c - high * s;
  out[at + half] = high * c + low * s;
}

/// One row a warp.
__global__ void kl_kernel(float* scores, const __half* target, std::int64_t heads, std::int64_t n,
                          std::int64_t pitch, std::int64_t skip_rows, float row_weight, double* row_loss) {
  const std::int64_t item = global_thread() / 32;
  const int lane = threadIdx.x % 32;
  if (item >= heads * n) return;
  const std::int64_t head = item / n;
  const std::int64_t row = item - head * n;
  float* s = scores + item * pitch;
  const __half* t = target + head * triangle(n) + triangle(row);
  if (row < skip_rows) {
    for (std::int64_t j = lane; j < n; j += 32) s[j] = 0.0f;
    if (lane == 0) row_loss[item] = 0.0;
    return;
  }
  float most = s[0];
  for (std::int64_t j = lane; j <= row; j += 32) most = fmaxf(most, s[j]);
  for (int distance = 16; distance > 0; distance /= 2)
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, distance));
  double sum = 0;
  double mass = 0;
  double cross = 0;  // sum of t (log t - (s - most))
  for (std::int64_t j = lane; j <= row; j += 32) {
    const float gap = s[j] - most;
    sum += expf(gap);
    const float share = __half2float(t[j]);
    if (share > 0) {
      mass += share;
      cross += share * (logf(share) - gap);
    }
  }
  sum = warp_sum(sum);
  mass = warp_sum(mass);
  cross = warp_sum(cross);
  if (lane == 0) row_loss[item] = cross + mass * log(sum);
  const auto scale = static_cast<float>(mass / sum);
  for (std::int64_t j = lane; j < n; j += 32)
    s[j] = j <= row ? row_weight * (expf(s[j] - most) * scale - __half2float(t[j])) : 0.0f;
}

/// One layer a block.
__global__ void loss_kernel(const double* row_loss, std::int64_t rows, double factor, double* loss) {
  __shared__ double of_warp[kWarps];
  const double* mine = row_loss + blockIdx.x * rows;
  double sum = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += kThreads) sum += mine[row];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += of_warp[warp];
  loss[blockIdx.x] += factor * total;
}

__global__ void adam_kernel(AdamFactors adam, std::int64_t size, const float* gradient, float* weight,
                            float* m, float* v) {
  const std::int64_t i = global_thread();
  if (i >= size) return;
  const float g = gradient[i];
  const float new_m = adam.beta1 * m[i] + (1 - adam.beta1) * g;
  const float new_v = adam.beta2 * v[i] + (1 - adam.beta2) * g * g;
  m[i] = new_m;
  v[i] = new_v;
  weight[i] -= adam.rate * new_m / (sqrtf(new_v * adam.v_share) + adam.epsilon);
}

}  // namespace

void launch_gate_rope(const float* x, const float* cos, const float* sin, std::int64_t heads, std::int64_t n,
                      int dim, bool inverse, float* out) {
  rope_kernel<<<blocks_of(heads * n * (dim / 2), kThreads), kThreads>>>(x, cos, sin, heads, n, dim / 2,
                                                                        inverse ? -1.0f : 1.0f, out);
  check(cudaGetLastError(), "gate RoPE");
}

void launch_gate_kl(float* scores, const Float16* target, std::int64_t heads, std::int64_t n,
                    std::int64_t pitch, std::int64_t skip_rows, float row_weight, double* row_loss) {
  kl_kernel<<<blocks_of(heads * n, kWarps), kThreads>>>(scores, reinterpret_cast<const __half*>(target),
                                                        heads, n, pitch, skip_rows, row_weight, row_loss);
  check(cudaGetLastError(), "gate loss");
}

void launch_gate_loss(const double* row_loss, int layers, std::int64_t rows, double factor, double* loss) {
  loss_kernel<<<static_cast<unsigned>(layers), kThreads>>>(row_loss, rows, factor, loss);
  check(cudaGetLastError(), "gate loss");
}

void launch_gate_adam(const AdamFactors& adam, std::int64_t size, const float* gradient, float* weight,
                      float* m, float* v) {
  adam_kernel<<<blocks_of(size, kThreads), kThreads>>>(adam, size, gradient, weight, m, v);
  check(cudaGetLastError(), "AdamW");
}

}  // namespace seer::cuda
