// The decode gate on the GPU: which blocks of the KV cache one token reads, chosen for each KV head by a
// query of that token and a compressed key a block. ops/decode_gate.h says what is computed. Every pointer is
// device memory; calls are asynchronous on `stream`; same inputs, same bits.
//
// Source: SeerAttention-R, arXiv 2506.08889, section 3. Schedule and numbers: docs/kernels/hopper_decode.md.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "cuda/attention.h"
#include "cuda/gate.h"

namespace seer::cuda {

/// What the gate keeps of one sequence, in all layers.
struct DecodeGateSequence {
  void* keys = nullptr;  // bf16 [layers, num_kv_heads, capacity, dim]: compressed keys of full blocks
  void* open =
      nullptr;  // [layers, 64, num_kv_heads, head_dim] keys of the block that is not full, as projected
  std::uint64_t* selected_blocks = nullptr;  // the number of blocks kept is added
  std::int64_t capacity = 0;                 // blocks
};

/// One layer's gate, and of the model what its inputs need.
struct DecodeGateLayerParams {
  DType dtype = DType::kBF16;  // of qkv and the open block: kBF16 or kF16
  int num_heads = 0;           // 1 to 16 times num_kv_heads
  int num_kv_heads = 0;
  int head_dim = 0;  // 64 or 128
  /// The model's norms of each head [head_dim], which the gate's inputs have passed; nullptr: none.
  const float* model_q_norm = nullptr;
  const float* model_k_norm = nullptr;
  float model_norm_eps = 0;

  int dim = 0;                     // gate_hidden_size: a multiple of 16 up to 256
  unsigned k_pools = 0;            // PoolSet
  const void* q_weight = nullptr;  // bf16 [num_kv_heads, num_heads / num_kv_heads * head_dim, dim]
  const void* k_weight = nullptr;  // bf16 [num_kv_heads, pools * head_dim, dim]
  const float* q_norm = nullptr;   // [dim]; nullptr: a gate without norms
  const float* k_norm = nullptr;
  const float* cos = nullptr;  // [*, dim / 2]: row p stands for position p
  const float* sin = nullptr;
};

/// Whole blocks of a prompt.
struct DecodeGateKeysParams {
  DecodeGateLayerParams gate;
  /// The first block's first key of head 0, before norm and RoPE; heads lie head_dim apart.
  const void* k = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t first_block = 0;  // its position in the prompt
  std::int64_t num_blocks = 0;
  void* keys =
      nullptr;  // out: element (head, block of the prompt, d) at keys[(head * capacity + block) * dim + d]
  std::int64_t capacity = 0;  // at least first_block + num_blocks
};

/// Throws Error on parameters outside the stated set and when CUDA reports an error; so do the others.
void decode_gate_keys(const DecodeGateKeysParams& params, Stream stream);

/// One token of each sequence of a batch.
struct DecodeGateTokenParams {
  DecodeGateLayerParams gate;
  int layer = 0;
  int batch = 0;
  const DecodeGateSequence* sequences = nullptr;  // [batch]
  /// [batch, num_heads + 2 * num_kv_heads, head_dim] as projected; sequences are qkv_stride elements apart.
  const void* qkv = nullptr;
  std::int64_t qkv_stride = 0;
  const std::int32_t* positions = nullptr;  // [batch], each below 64 times its sequence's capacity
  /// The key of a block that fills up is rotated at the position of its last token, not of its first.
  bool rotate_at_last = false;
  /// Blocks kept: the best token_budget / 64 by score, the later ones of equal scores; with token_budget 0
  /// those with a softmax share above `threshold`. The last block always. Where the budget holds all: all.
  std::int64_t token_budget = 0;
  double threshold = 0;
  /// Out: [batch, num_kv_heads, mask_words], bit j % 64 of word j / 64 for block j; every word is written.
  /// nullptr: the token's key is taken in, and no block is chosen.
  std::uint64_t* mask = nullptr;
  std::int64_t mask_words = 0;  // up to kMaxSelectBlocks / 64, and enough for every position
};

/// Takes the tokens' keys in, compresses the blocks that they fill, and chooses each token's blocks. Does not
/// depend on the lengths that the host knows: a captured call stays right from step to step. A sequence's
/// mask has the same bits in every batch.
void decode_gate(const DecodeGateTokenParams& params, Stream stream);

}  // namespace seer::cuda
