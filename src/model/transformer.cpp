#include "model/transformer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "core/check.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

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

}  // namespace

/// Activations of one chunk (or of one decode batch), float32, reused from call to call.
struct Transformer::Scratch {
  Buffer<float> x, normed;    // [tokens, hidden]
  Buffer<float> q_pre, q;     // [tokens, num_heads, head_dim] before and after RoPE
  Buffer<float> k_pre, k, v;  // [tokens, num_kv_heads, head_dim]
  Buffer<float> attention;    // [tokens, num_heads, head_dim]
  Buffer<float> gate, up;     // [tokens, intermediate]
  Buffer<float> cos, sin;     // [tokens, head_dim / 2]
  Buffer<float> target;       // [num_heads, rows, blocks], observers only
  Buffer<float> logits;
  std::vector<PagedKv> views;  // decode: one per sequence
  BlockMask mask;

  void reserve(const ModelConfig& config, std::int64_t tokens) {
    for (Buffer<float>* buffer : {&x, &normed}) buffer->reserve_discard(tokens * config.hidden_size);
    for (Buffer<float>* buffer : {&q_pre, &q, &attention}) buffer->reserve_discard(tokens * config.q_size());
    for (Buffer<float>* buffer : {&k_pre, &k, &v}) buffer->reserve_discard(tokens * config.kv_size());
    for (Buffer<float>* buffer : {&gate, &up}) buffer->reserve_discard(tokens * config.intermediate_size);
    for (Buffer<float>* buffer : {&cos, &sin}) buffer->reserve_discard(tokens * config.head_dim / 2);
  }
};

Transformer::Transformer(std::shared_ptr<const ModelWeights> weights, const ModelConfig& config,
                         const Context& context, const TransformerOptions& options)
    : weights_(std::move(weights)),
      config_(config),
      context_(context),
      options_(options),
      max_context_(options.max_context > 0 ? options.max_context : config.max_position_embeddings),
      pool_(std::make_shared<KvPool>(config, options.kv_dtype)),
      rope_(config.rope, config.head_dim, config.max_position_embeddings),
      scratch_(std::make_unique<Scratch>()) {
  SEER_CHECK(options.chunk_tokens > 0 && options.chunk_tokens % kBlockSize == 0,
             "chunk_tokens: expected a positive multiple of {}, found {}", kBlockSize, options.chunk_tokens);
}

Transformer::~Transformer() = default;

Sequence Transformer::new_sequence() const { return Sequence(pool_); }

RopeTable Transformer::rope_for(std::int64_t length) const {
  // Only dynamic NTK's frequencies depend on the length, and only past the trained one.
  if (config_.rope.type == RopeType::kDynamic && length > config_.max_position_embeddings)
    return RopeTable(config_.rope, config_.head_dim, length);
  return rope_;
}

/// x -> q_pre, k_pre, v (with q/k norm), then q, k after RoPE.
void Transformer::project_qkv(const LayerWeights& layer, std::int64_t tokens) {
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
void Transformer::finish_layer(const LayerWeights& layer, std::int64_t tokens) {
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
void Transformer::compute_logits(std::int64_t first, std::int64_t rows, float* logits) {
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

PrefillResult Transformer::prefill(Sequence& sequence, const PrefillRequest& request) {
  const auto total = static_cast<std::int64_t>(request.tokens.size());
  SEER_CHECK(total > 0, "prefill: the prompt is empty; expected at least one token");
  SEER_CHECK(total <= max_context_,
             "prefill: the prompt has {} tokens, the context holds {}; raise it with --max-context", total,
             max_context_);
  SEER_CHECK(sequence.length() == 0, "prefill: expected an empty sequence, found one of {} tokens",
             sequence.length());

  const auto start = Clock::now();
  PrefillResult result;
  const RopeTable rope = rope_for(total);
  if (request.selector != nullptr) request.selector->begin(total);
  for (std::int64_t done = 0; done < total; done += options_.chunk_tokens) {
    const std::int64_t tokens = std::min(options_.chunk_tokens, total - done);
    sequence.extend(tokens);
    prefill_chunk(sequence, request, rope, done, tokens, result.stats);
    if (request.on_logits) {
      const auto logits_start = Clock::now();
      const std::int64_t step = std::max<std::int64_t>(kBlockSize, kLogitsElements / config_.vocab_size);
      scratch_->logits.reserve_discard(std::min(step, tokens) * config_.vocab_size);
      for (std::int64_t row = 0; row < tokens; row += step) {
        const std::int64_t rows = std::min(step, tokens - row);
        compute_logits(row, rows, scratch_->logits.data());
        request.on_logits(done + row, rows, scratch_->logits.data());
      }
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

void Transformer::prefill_chunk(Sequence& sequence, const PrefillRequest& request, const RopeTable& rope,
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
    const PagedKv kv = sequence.layer(index);
    kv_store(context_, kv, first, tokens, s.k.data(), s.v.data());

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
    if (request.observer != nullptr && request.observer->wants_target()) {
      SEER_CHECK(!sparse, "prefill: the pooled attention is observed in a dense prefill only");
      attention.pooled_target_stride = first_row + rows;
      s.target.reserve_discard(config_.num_heads * rows * attention.pooled_target_stride);
      attention.pooled_target = s.target.data();
    }
    const auto attention_start = Clock::now();
    attention_prefill(context_, attention);
    stats.attention_seconds += seconds_since(attention_start);
    if (request.observer != nullptr)
      request.observer->observe(input, attention.pooled_target, attention.pooled_target_stride);
    finish_layer(layer, tokens);
  }
}

void Transformer::decode(std::span<Sequence* const> sequences, std::span<const std::int32_t> tokens,
                         float* logits) {
  Scratch& s = *scratch_;
  const auto batch = static_cast<std::int64_t>(sequences.size());
  SEER_CHECK(tokens.size() == sequences.size(),
             "decode: expected one token for each of {} sequences, found {}", sequences.size(),
             tokens.size());
  if (batch == 0) return;
  s.reserve(config_, batch);
  const int half = config_.head_dim / 2;
  for (std::int64_t b = 0; b < batch; ++b) {
    Sequence& sequence = *sequences[static_cast<std::size_t>(b)];
    SEER_CHECK(sequence.length() < max_context_,
               "decode: the context of {} tokens is full; raise it with --max-context", max_context_);
    rope_for(sequence.length() + 1)
        .fill(sequence.length(), 1, 1, s.cos.data() + b * half, s.sin.data() + b * half);
    sequence.extend(1);
  }
  embedding(context_, weights_->embedding, tokens.data(), batch, s.x.data());
  s.views.resize(sequences.size());
  for (int index = 0; index < config_.num_layers; ++index) {
    const LayerWeights& layer = weights_->layers[static_cast<std::size_t>(index)];
    project_qkv(layer, batch);
    for (std::int64_t b = 0; b < batch; ++b) {
      const Sequence& sequence = *sequences[static_cast<std::size_t>(b)];
      s.views[static_cast<std::size_t>(b)] = sequence.layer(index);
      kv_store(context_, s.views[static_cast<std::size_t>(b)], sequence.length() - 1, 1,
               s.k.data() + b * config_.kv_size(), s.v.data() + b * config_.kv_size());
    }
    attention_decode(context_, {.q = s.q.data(),
                                .out = s.attention.data(),
                                .num_heads = config_.num_heads,
                                .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                                .kv = s.views});
    finish_layer(layer, batch);
  }
  compute_logits(0, batch, logits);
}

}  // namespace seer
