#include "model/cpu_transformer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "core/check.h"
#include "model/cpu_probe.h"
#include "model/decode_selector.h"
#include "model/sampler.h"
#include "ops/elementwise.h"
#include "ops/gate.h"

namespace seer {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

const float* data_or_null(const std::vector<float>& values) {
  return values.empty() ? nullptr : values.data();
}

/// Logits computed at a time, so that a large vocabulary needs little memory.
constexpr std::int64_t kLogitsElements = 4 << 20;

/// Activations of a chunk stay in the caches' reach and the products are large enough.
constexpr std::int64_t kChunkTokens = 1024;

}  // namespace

/// Activations of one chunk (or of one decode batch), float32, reused from call to call.
struct CpuTransformer::Scratch {
  Buffer<float> x, normed;           // [tokens, hidden]
  Buffer<float> q_pre, q;            // [tokens, num_heads, head_dim] before and after RoPE
  Buffer<float> k_pre, k, v;         // [tokens, num_kv_heads, head_dim]
  Buffer<float> attention;           // [tokens, num_heads, head_dim]
  Buffer<float> gate, up;            // [tokens, intermediate]
  Buffer<float> cos, sin;            // [tokens, head_dim / 2]
  Buffer<float> target;              // [num_heads, rows, blocks], observers only
  Buffer<float> lse;                 // [num_heads, tokens], observers only
  Buffer<float> q_pooled, k_pooled;  // observers only
  Buffer<float> logits;
  std::vector<PagedKv> views;  // decode: one per sequence
  BlockMask mask;
  std::vector<std::uint64_t> decode_mask;  // [sequences, num_kv_heads, words]

  void reserve(const ModelConfig& config, std::int64_t tokens) {
    for (Buffer<float>* buffer : {&x, &normed}) buffer->reserve_discard(tokens * config.hidden_size);
    for (Buffer<float>* buffer : {&q_pre, &q, &attention}) buffer->reserve_discard(tokens * config.q_size());
    for (Buffer<float>* buffer : {&k_pre, &k, &v}) buffer->reserve_discard(tokens * config.kv_size());
    for (Buffer<float>* buffer : {&gate, &up}) buffer->reserve_discard(tokens * config.intermediate_size);
    for (Buffer<float>* buffer : {&cos, &sin}) buffer->reserve_discard(tokens * config.head_dim / 2);
  }
};

CpuTransformer::CpuTransformer(std::shared_ptr<const ModelWeights> weights, const ModelConfig& config,
                               const Context& context, const TransformerOptions& options)
    : CpuTransformer(std::move(weights), config, context, options,
                     std::make_shared<KvPool>(config, options.kv_dtype)) {}

CpuTransformer::CpuTransformer(std::shared_ptr<const ModelWeights> weights, const ModelConfig& config,
                               const Context& context, const TransformerOptions& options,
                               std::shared_ptr<KvPool> kv)
    : Transformer(config, context, options, kv),
      weights_(std::move(weights)),
      kv_(std::move(kv)),
      scratch_(std::make_unique<Scratch>()) {
  if (options_.chunk_tokens == 0) options_.chunk_tokens = kChunkTokens;
}

CpuTransformer::~CpuTransformer() = default;

/// x -> q_pre, k_pre, v (with q/k norm), then q, k after RoPE.
void CpuTransformer::project_qkv(const LayerWeights& layer, std::int64_t tokens) {
  Scratch& s = *scratch_;
  const int hidden = config_.hidden_size, dim = config_.head_dim;
  const int q_size = config_.q_size(), kv_size = config_.kv_size();
  rms_norm(context_, s.x.data(), layer.input_norm.data(), config_.rms_norm_eps, tokens, hidden, hidden,
           s.normed.data());
  LinearParams base{.x = s.normed.data(), .x_stride = hidden, .m = tokens, .allow_bf16 = options_.allow_bf16};
  std::array<LinearParams, 3> products{base, base, base};
  products[0].y = s.q_pre.data(), products[0].y_stride = q_size;
  products[0].w = layer.q, products[0].bias = data_or_null(layer.q_bias);
  products[1].y = s.k_pre.data(), products[1].y_stride = kv_size;
  products[1].w = layer.k, products[1].bias = data_or_null(layer.k_bias);
  products[2].y = s.v.data(), products[2].y_stride = kv_size;
  products[2].w = layer.v, products[2].bias = data_or_null(layer.v_bias);
  linear_many(context_, products.data(), static_cast<int>(products.size()));
  if (config_.qk_norm) {
    rms_norm(context_, s.q_pre.data(), layer.q_norm.data(), config_.rms_norm_eps, tokens * config_.num_heads,
             dim, dim, s.q_pre.data());
    rms_norm(context_, s.k_pre.data(), layer.k_norm.data(), config_.rms_norm_eps,
             tokens * config_.num_kv_heads, dim, dim, s.k_pre.data());
  }
  apply_rope(context_, s.q_pre.data(), s.cos.data(), s.sin.data(), tokens, config_.num_heads, dim, q_size,
             s.q.data(), q_size);
  apply_rope(context_, s.k_pre.data(), s.cos.data(), s.sin.data(), tokens, config_.num_kv_heads, dim, kv_size,
             s.k.data(), kv_size);
}

/// attention -> x += o projection, then the MLP.
void CpuTransformer::finish_layer(const LayerWeights& layer, std::int64_t tokens) {
  Scratch& s = *scratch_;
  const int hidden = config_.hidden_size, inner = config_.intermediate_size;
  linear(context_, {.x = s.attention.data(),
                    .x_stride = config_.q_size(),
                    .y = s.x.data(),
                    .y_stride = hidden,
                    .m = tokens,
                    .w = layer.o,
                    .bias = data_or_null(layer.o_bias),
                    .add_to_y = true,
                    .allow_bf16 = options_.allow_bf16});
  rms_norm(context_, s.x.data(), layer.post_attention_norm.data(), config_.rms_norm_eps, tokens, hidden,
           hidden, s.normed.data());
  LinearParams base{.x = s.normed.data(),
                    .x_stride = hidden,
                    .y_stride = inner,
                    .m = tokens,
                    .allow_bf16 = options_.allow_bf16};
  std::array<LinearParams, 2> products{base, base};
  products[0].y = s.gate.data(), products[0].w = layer.gate, products[0].bias = data_or_null(layer.gate_bias);
  products[1].y = s.up.data(), products[1].w = layer.up, products[1].bias = data_or_null(layer.up_bias);
  linear_many(context_, products.data(), static_cast<int>(products.size()));
  silu_multiply(context_, s.gate.data(), s.up.data(), tokens * inner);
  linear(context_, {.x = s.gate.data(),
                    .x_stride = inner,
                    .y = s.x.data(),
                    .y_stride = hidden,
                    .m = tokens,
                    .w = layer.down,
                    .bias = data_or_null(layer.down_bias),
                    .add_to_y = true,
                    .allow_bf16 = options_.allow_bf16});
}

/// Logits [rows, vocab] of the hidden states of chunk rows [first, first + rows).
void CpuTransformer::compute_logits(std::int64_t first, std::int64_t rows, float* logits) {
  Scratch& s = *scratch_;
  const int hidden = config_.hidden_size;
  rms_norm(context_, s.x.data() + first * hidden, weights_->final_norm.data(), config_.rms_norm_eps, rows,
           hidden, hidden, s.normed.data());
  linear(context_, {.x = s.normed.data(),
                    .x_stride = hidden,
                    .y = logits,
                    .y_stride = config_.vocab_size,
                    .m = rows,
                    .w = weights_->lm_head,
                    .allow_bf16 = options_.allow_bf16});
}

/// Logits of a chunk's rows to the request's callback, and the losses of the tokens after them.
void CpuTransformer::score_chunk(const PrefillRequest& request, std::int64_t first, std::int64_t tokens) {
  const std::int64_t vocab = config_.vocab_size;
  const std::int64_t step = std::max<std::int64_t>(kBlockSize, kLogitsElements / vocab);
  const auto last = static_cast<std::int64_t>(request.tokens.size()) - 1;
  Buffer<float>& logits = scratch_->logits;
  logits.reserve_discard(std::min(step, tokens) * vocab);
  for (std::int64_t row = 0; row < tokens; row += step) {
    const std::int64_t rows = std::min(step, tokens - row), position = first + row;
    compute_logits(row, rows, logits.data());
    if (request.on_logits) request.on_logits(position, rows, logits.data());
    const std::int64_t scored = std::min(rows, last - position);
    if (request.nll != nullptr && scored > 0)
      cross_entropy(context_, logits.data(), scored, vocab, request.tokens.data() + position + 1,
                    request.nll + position);
  }
}

PrefillResult CpuTransformer::run_prefill(Sequence& sequence, const PrefillRequest& request) {
  const auto start = Clock::now();
  const auto total = static_cast<std::int64_t>(request.tokens.size());
  PrefillResult result;
  const RopeTable rope = rope_for(total);
  if (request.selector != nullptr) request.selector->begin(total);
  if (sequence.decode_selector() != nullptr) sequence.decode_selector()->begin(total);
  for (std::int64_t done = 0; done < total; done += options_.chunk_tokens) {
    const std::int64_t tokens = std::min(options_.chunk_tokens, total - done);
    sequence.extend(tokens);
    prefill_chunk(sequence, request, rope, done, tokens, result.stats);
    if (request.on_logits || request.nll != nullptr) {
      const auto logits_start = Clock::now();
      score_chunk(request, done, tokens);
      result.stats.logits_seconds += seconds_since(logits_start);
    }
    if (request.want_last_logits && done + tokens == total) {
      result.last_logits.resize(static_cast<std::size_t>(config_.vocab_size));
      compute_logits(tokens - 1, 1, result.last_logits.data());
    }
    if (request.on_progress) request.on_progress(done + tokens);
  }
  result.stats.seconds = seconds_since(start);
  return result;
}

/// Hands a layer to the request's observer.
void CpuTransformer::observe(const PrefillRequest& request, const SelectInput& input, const BlockMask* mask,
                             const PrefillAttentionParams& attention) {
  Scratch& s = *scratch_;
  const ObserverWants wants = request.observer->wants();
  CpuProbe probe(context_, input, config_.num_heads);
  LayerObservation seen{.layer = input.layer,
                        .first_row = input.q_offset / kBlockSize,
                        .rows = blocks_for(input.num_tokens),
                        .tokens = input.num_tokens,
                        .total_tokens = input.total_tokens,
                        .target = attention.pooled_target,
                        .target_stride = attention.pooled_target_stride,
                        .mask = wants.mask ? mask : nullptr,
                        .probe = wants.probe ? &probe : nullptr,
                        .lse = attention.lse};
  const auto pool = [&](const float* x, int heads, std::int64_t stride, unsigned pools, Buffer<float>& out) {
    if (pools == 0) return static_cast<const float*>(nullptr);
    out.reserve_discard(seen.rows * heads * pool_count(pools) * config_.head_dim);
    block_pool(context_, x, input.num_tokens, heads, config_.head_dim, stride, pools, out.data());
    return static_cast<const float*>(out.data());
  };
  seen.q_pooled = pool(input.q_pre, config_.num_heads, input.q_stride, wants.q_pools, s.q_pooled);
  seen.k_pooled = pool(input.k_pre, config_.num_kv_heads, input.k_stride, wants.k_pools, s.k_pooled);
  request.observer->observe(seen);
}

void CpuTransformer::prefill_chunk(Sequence& sequence, const PrefillRequest& request, const RopeTable& rope,
                                   std::int64_t first, std::int64_t tokens, PrefillStats& stats) {
  Scratch& s = *scratch_;
  s.reserve(config_, tokens);
  const int half = config_.head_dim / 2;
  context_.parallel_ranges(tokens, 16, [&](std::int64_t begin, std::int64_t end, int) {
    rope.fill(first + begin, 1, end - begin, s.cos.data() + begin * half, s.sin.data() + begin * half);
  });
  embedding(context_, weights_->embedding, request.tokens.data() + first, tokens, s.x.data());

  const std::int64_t first_row = first / kBlockSize, rows = blocks_for(tokens);
  for (int index = 0; index < config_.num_layers; ++index) {
    const LayerWeights& layer = weights_->layers[static_cast<std::size_t>(index)];
    project_qkv(layer, tokens);
    const PagedKv kv = kv_->view(index, sequence);
    kv_store(context_, kv, first, tokens, s.k.data(), s.v.data());
    if (sequence.decode_selector() != nullptr)
      sequence.decode_selector()->add_prompt(context_, index, first, tokens, s.k_pre.data());

    const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    const SelectInput input{.layer = index,
                            .q_offset = first,
                            .num_tokens = tokens,
                            .total_tokens = static_cast<std::int64_t>(request.tokens.size()),
                            .q_pre = s.q_pre.data(),
                            .k_pre = s.k_pre.data(),
                            .q_stride = config_.q_size(),
                            .k_stride = config_.kv_size(),
                            .q = s.q.data(),
                            .kv = kv,
                            .scale = scale};
    bool sparse = false;
    s.mask.reset(config_.num_heads, first_row, rows);
    stats.causal_blocks += s.mask.causal_blocks();
    if (request.selector != nullptr) {
      const auto select_start = Clock::now();
      sparse = request.selector->select(context_, input, s.mask);
      stats.select_seconds += seconds_since(select_start);
    }
    stats.selected_blocks += sparse ? s.mask.selected_blocks() : s.mask.causal_blocks();

    PrefillAttentionParams attention{.q = s.q.data(),
                                     .out = s.attention.data(),
                                     .num_tokens = tokens,
                                     .q_offset = first,
                                     .num_heads = config_.num_heads,
                                     .scale = scale,
                                     .kv = kv,
                                     .mask = sparse ? &s.mask : nullptr};
    const ObserverWants wants = request.observer != nullptr ? request.observer->wants() : ObserverWants{};
    if (wants.probe) {
      s.lse.reserve_discard(config_.num_heads * tokens);
      attention.lse = s.lse.data();
    }
    if (wants.target) {
      SEER_CHECK(!sparse, "prefill: the pooled attention is observed in a dense prefill only");
      attention.pooled_target_stride = first_row + rows;
      s.target.reserve_discard(config_.num_heads * rows * attention.pooled_target_stride);
      attention.pooled_target = s.target.data();
    }
    const auto attention_start = Clock::now();
    attention_prefill(context_, attention);
    stats.attention_seconds += seconds_since(attention_start);
    if (request.observer != nullptr) observe(request, input, attention.mask, attention);
    finish_layer(layer, tokens);
  }
}

/// The mask that attention_decode takes, `words` words a row; nullptr when every sequence reads all its
/// blocks.
const std::uint64_t* CpuTransformer::select_for_decode(std::span<Sequence* const> sequences, int layer,
                                                       std::int64_t words) {
  Scratch& s = *scratch_;
  const std::int64_t heads = config_.num_kv_heads;
  bool sparse = false;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    DecodeSelector* selector = sequences[b]->decode_selector();
    if (selector == nullptr) continue;
    const auto row = static_cast<std::int64_t>(b);
    const BlockMask* mask =
        selector->select(context_, layer, sequences[b]->length() - 1, s.q_pre.data() + row * config_.q_size(),
                         s.k_pre.data() + row * config_.kv_size());
    if (mask == nullptr) continue;
    // Rows of sequences without a mask stay full; bits past a sequence's blocks mean nothing.
    if (!sparse) s.decode_mask.assign(sequences.size() * static_cast<std::size_t>(heads * words), ~0ull);
    sparse = true;
    for (int head = 0; head < config_.num_kv_heads; ++head)
      std::copy_n(mask->row(head, 0), mask->words(), s.decode_mask.data() + (row * heads + head) * words);
  }
  return sparse ? s.decode_mask.data() : nullptr;
}

void CpuTransformer::run_decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                                float* logits, std::span<const TokenDraw> draws, std::int32_t* next) {
  Scratch& s = *scratch_;
  const auto batch = static_cast<std::int64_t>(sequences.size());
  s.reserve(config_, batch);
  const int half = config_.head_dim / 2;
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t length = sequences[static_cast<std::size_t>(b)]->length();
    longest = std::max(longest, length);
    rope_for(length).fill(length - 1, 1, 1, s.cos.data() + b * half, s.sin.data() + b * half);
  }
  embedding(context_, weights_->embedding, tokens.data(), batch, s.x.data());
  s.views.resize(sequences.size());
  const std::int64_t mask_words = mask_words_for(blocks_for(longest));
  for (int index = 0; index < config_.num_layers; ++index) {
    const LayerWeights& layer = weights_->layers[static_cast<std::size_t>(index)];
    project_qkv(layer, batch);
    for (std::int64_t b = 0; b < batch; ++b) {
      PagedKv& view = s.views[static_cast<std::size_t>(b)];
      view = kv_->view(index, *sequences[static_cast<std::size_t>(b)]);
      kv_store(context_, view, view.length - 1, 1, s.k.data() + b * config_.kv_size(),
               s.v.data() + b * config_.kv_size());
    }
    attention_decode(context_, {.q = s.q.data(),
                                .out = s.attention.data(),
                                .num_heads = config_.num_heads,
                                .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                                .kv = s.views,
                                .mask = select_for_decode(sequences, index, mask_words),
                                .mask_words = mask_words});
    finish_layer(layer, batch);
  }
  if (logits != nullptr) {
    compute_logits(0, batch, logits);
    return;
  }
  const std::int64_t vocab = config_.vocab_size;
  s.logits.reserve_discard(batch * vocab);
  compute_logits(0, batch, s.logits.data());
  for (std::int64_t b = 0; b < batch; ++b)
    next[b] = draw_token({s.logits.data() + b * vocab, static_cast<std::size_t>(vocab)},
                         draws[static_cast<std::size_t>(b)]);
}

}  // namespace seer
