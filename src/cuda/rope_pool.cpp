#include "cuda/rope_pool.h"

#include "core/check.h"
#include "cuda/argument_checks.h"
#include "cuda/gate_launch.h"
#include "ops/block_mask.h"
#include "ops/gate.h"

namespace seer::cuda {
namespace {

/// What rope_pool and rope_store have in common.
template <class Params>
void check_params(const char* name, const Params& p) {
  check_dtype(name, p.dtype);
  check_head_dim(name, p.head_dim);
  SEER_CHECK(p.num_kv_heads > 0 && p.num_heads > 0 && p.num_heads % p.num_kv_heads == 0,
             "{}: num_heads must be a multiple of num_kv_heads, got {} and {}", name, p.num_heads,
             p.num_kv_heads);
  check_pointer(name, "qkv", p.qkv);
  check_pointer(name, "q", p.q);
  check_pointer(name, "cache.k", p.cache.k);
  check_pointer(name, "cache.v", p.cache.v);
  check_pointer(name, "cos", p.cos);
  check_pointer(name, "sin", p.sin);
  SEER_CHECK(p.qkv_stride % 8 == 0 && p.q_stride % 8 == 0 && p.cache.token_stride % 8 == 0 &&
                 p.cache.head_stride % 8 == 0 && p.cache.page_stride % 8 == 0,
             "{}: strides must be multiples of 8 elements, got qkv {}, q {}, cache {}, {}, {}", name,
             p.qkv_stride, p.q_stride, p.cache.token_stride, p.cache.head_stride, p.cache.page_stride);
  SEER_CHECK(p.cache.page_table != nullptr, "{}: cache.page_table must be given", name);
}

/// A set of pools, where pooled values are wanted.
void check_pools(const char* name, unsigned pools, bool wanted) {
  constexpr unsigned kAll = kPoolMax | kPoolMin | kPoolAvg;
  SEER_CHECK(!wanted || (pools != 0 && (pools & ~kAll) == 0),
             "rope_pool: {} must be a set of max, min, avg, got {}", name, pools);
}

}  // namespace

void rope_table(const double* inv_freq, int dim, double attention_factor, std::int64_t first,
                std::int64_t step, std::int64_t count, float* cos, float* sin, Stream stream) {
  SEER_CHECK(dim > 0 && dim % 2 == 0, "rope_table: dim must be even, got {}", dim);
  if (count <= 0) return;
  launch_rope_table(inv_freq, dim, attention_factor, first, step, count, cos, sin,
                    static_cast<CUstream_st*>(stream));
}

void rope_pool(const RopePoolParams& p, Stream stream) {
  constexpr std::int64_t kMostBlocks = 65535;
  check_params("rope_pool", p);
  check_pools("q_pools", p.q_pools, p.q_pooled != nullptr || p.q_gate != nullptr);
  check_pools("k_pools", p.k_pools, p.k_pooled != nullptr || p.k_gate != nullptr);
  SEER_CHECK((p.block_cos == nullptr) == (p.block_sin == nullptr) &&
                 (p.block_cos == nullptr || pool_count(p.q_pools) == 1),
             "rope_pool: block_cos and block_sin go together and with one pool of queries, got {} pools",
             pool_count(p.q_pools));
  SEER_CHECK(p.first_position % kBlockSize == 0 && p.first_position >= 0,
             "rope_pool: first_position must be a multiple of {}, got {}", kBlockSize, p.first_position);
  SEER_CHECK(p.num_tokens >= 0 && blocks_for(p.num_tokens) <= kMostBlocks,
             "rope_pool: num_tokens must be from 0 to {}, got {}", kMostBlocks * kBlockSize, p.num_tokens);
  if (p.num_tokens > 0) launch_rope_pool(p, static_cast<CUstream_st*>(stream));
}

void rope_store(const RopeStoreParams& p, Stream stream) {
  check_params("rope_store", p);
  SEER_CHECK(p.batch >= 0 && p.batch < 65536, "rope_store: batch must be from 0 to 65535, got {}", p.batch);
  SEER_CHECK(p.positions != nullptr, "rope_store: positions must be given");
  if (p.batch > 0) launch_rope_store(p, static_cast<CUstream_st*>(stream));
}

}  // namespace seer::cuda
