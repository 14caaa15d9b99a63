#include "cuda/gate_train.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "cuda/blas.h"
#include "cuda/device_array.h"
#include "cuda/gate_train_kernels.h"

namespace seer::cuda {
namespace {

/// What the products' library, the context and fragmentation may take beside the arrays counted.
constexpr double kReserveBytes = 512 << 20;

/// Columns of a row of scores: rows start at multiples of 256 bytes.
std::int64_t pitch_of(std::int64_t n) { return (n + 63) / 64 * 64; }

void copy_to_device(void* to, const void* from, std::int64_t bytes) {
  check(cudaMemcpy(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice), "copy to the device");
}

void copy_to_host(void* to, const void* from, std::int64_t bytes) {
  check(cudaMemcpy(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost),
        "copy from the device");
}

/// A sequence on the device, all layers behind each other; q after RoPE where no matrix comes before it.
struct Sequence {
  Sequence(const GateTrainShape& shape, const GateTrainSequence& host)
      : n(host.n),
        q(shape.layers * shape.num_heads * n * shape.q_width),
        k(shape.layers * shape.num_kv_heads * n * shape.k_width),
        target(shape.layers * shape.num_heads * triangle(n)),
        cos(n * shape.dim / 2),
        sin(n * shape.dim / 2) {
    const auto copy_layers = [&](auto& array, const auto& sources) {
      const std::int64_t size = array.size() / shape.layers;
      for (int layer = 0; layer < shape.layers; ++layer)
        copy_to_device(array.data() + layer * size, sources[static_cast<std::size_t>(layer)],
                       size * static_cast<std::int64_t>(sizeof(*array.data())));
    };
    copy_layers(q, host.q);
    copy_layers(k, host.k);
    copy_layers(target, host.target);
    copy_to_device(cos.data(), host.cos, static_cast<std::int64_t>(cos.bytes()));
    copy_to_device(sin.data(), host.sin, static_cast<std::int64_t>(sin.bytes()));
    if (!shape.has_q_linear)
      launch_gate_rope(q.data(), cos.data(), sin.data(), std::int64_t{shape.layers} * shape.num_heads, n,
                       shape.dim, /*inverse=*/false, q.data());
  }

  static double bytes(const GateTrainShape& shape, std::int64_t n) {
    return static_cast<double>(shape.layers) *
           (4.0 * static_cast<double>(
                      n * (shape.num_heads * shape.q_width + shape.num_kv_heads * shape.k_width)) +
            2.0 * static_cast<double>(shape.num_heads * triangle(n)));
  }

  std::int64_t n;
  DeviceArray<float> q, k;
  DeviceArray<Float16> target;
  DeviceArray<float> cos, sin;
};

/// All layers' matrices of one kind, with gradient and moments.
struct Parameters {
  explicit Parameters(std::int64_t size) : weight(size), gradient(size), m(size), v(size) {}
  DeviceArray<float> weight, gradient, m, v;
};

/// What a step needs for one sequence at a time.
struct Scratch {
  Scratch(const GateTrainShape& shape, std::int64_t n)
      : keys(shape.layers * shape.key_heads() * n * shape.dim),
        d_keys(keys.size()),
        queries(shape.has_q_linear ? shape.layers * shape.num_heads * n * shape.dim : 0),
        d_queries(queries.size()),
        scores(shape.layers * shape.num_heads * n * pitch_of(n)),
        row_loss(shape.layers * shape.num_heads * n),
        loss(shape.layers) {}

  static double bytes(const GateTrainShape& shape, std::int64_t n) {
    const double heads = 2.0 * (shape.key_heads() + (shape.has_q_linear ? shape.num_heads : 0));
    return static_cast<double>(shape.layers * n) *
           (4 * heads * shape.dim + 4.0 * static_cast<double>(shape.num_heads * pitch_of(n)) +
            8.0 * shape.num_heads);
  }

  DeviceArray<float> keys, d_keys, queries, d_queries, scores;
  DeviceArray<double> row_loss, loss;
};

/// An operand of batched products: matrices of rows at distance `ld`, `stride` apart.
struct Matrices {
  float* data;
  std::int64_t ld;
  std::int64_t stride;
  bool transposed = false;
};

}  // namespace

struct GateTraining::Impl {
  Impl(const GateTrainShape& s, std::span<const GateTrainSequence> hosts)
      : shape(s),
        longest(check_memory(s, hosts)),
        k(s.layers * s.k_size()),
        q(s.layers * s.q_size()),
        scratch(s, longest) {
    for (const GateTrainSequence& host : hosts) sequences.emplace_back(shape, host);
  }

  /// Returns the longest sequence's blocks.
  static std::int64_t check_memory(const GateTrainShape& shape, std::span<const GateTrainSequence> hosts) {
    constexpr double kGib = 1 << 30;
    std::int64_t longest = 0;
    double samples = 0;
    for (const GateTrainSequence& host : hosts) {
      longest = std::max(longest, host.n);
      samples += Sequence::bytes(shape, host.n);
    }
    const double scratch = Scratch::bytes(shape, longest);
    const double weights = 16.0 * shape.layers * static_cast<double>(shape.k_size() + shape.q_size());
    std::size_t free = 0, all = 0;
    check(cudaMemGetInfo(&free, &all), "distillation");
    SEER_CHECK(
        samples + scratch + weights + kReserveBytes <= static_cast<double>(free),
        "distillation: {} sequences of up to {} blocks need {:.1f} GiB on the device ({:.1f} samples, {:.1f} "
        "scores, {:.1f} weights and moments, {:.1f} reserve), {:.1f} are free; use fewer or shorter "
        "sequences "
        "(--sequences) or --device cpu",
        hosts.size(), longest, (samples + scratch + weights + kReserveBytes) / kGib, samples / kGib,
        scratch / kGib, weights / kGib, kReserveBytes / kGib, static_cast<double>(free) / kGib);
    return longest;
  }

  Parameters& parameters(Matrix which) { return which == Matrix::kKey ? k : q; }
  std::int64_t layer_size(Matrix which) const {
    return which == Matrix::kKey ? shape.k_size() : shape.q_size();
  }

  /// c = alpha a b + beta c, `batch` products of [m, depth] and [depth, columns].
  void multiply(const Matrices& a, const Matrices& b, const Matrices& c, std::int64_t m, std::int64_t columns,
                std::int64_t depth, int batch, float alpha, float beta) {
    blas.matmul({.a = a.data,
                 .lda = a.ld,
                 .stride_a = a.stride,
                 .b = b.data,
                 .ldb = b.ld,
                 .stride_b = b.stride,
                 .c = c.data,
                 .ldc = c.ld,
                 .stride_c = c.stride,
                 .m = m,
                 .n = columns,
                 .k = depth,
                 .batch = batch,
                 .transpose_a = a.transposed,
                 .transpose_b = b.transposed,
                 .dtype = DType::kF32,
                 .out_dtype = DType::kF32,
                 .alpha = alpha,
                 .beta = beta},
                nullptr);
  }

  void rope(const Sequence& sequence, DeviceArray<float>& x, int heads, bool inverse) {
    launch_gate_rope(x.data(), sequence.cos.data(), sequence.sin.data(), std::int64_t{shape.layers} * heads,
                     sequence.n, shape.dim, inverse, x.data());
  }

  /// keys and queries of a sequence, after RoPE. Returns the queries.
  float* project(Sequence& sequence) {
    const std::int64_t n = sequence.n, dim = shape.dim;
    const int key_group =
        shape.key_heads() / shape.num_kv_heads;  // heads that read one KV head's pooled keys
    for (int i = 0; i < key_group; ++i)
      multiply({sequence.k.data(), shape.k_width, n * shape.k_width},
               {k.weight.data() + i * shape.k_width * dim, dim, key_group * shape.k_width * dim},
               {scratch.keys.data() + i * n * dim, dim, key_group * n * dim}, n, dim, shape.k_width,
               shape.layers * shape.num_kv_heads, 1.0f, 0.0f);
    rope(sequence, scratch.keys, shape.key_heads(), /*inverse=*/false);
    if (!shape.has_q_linear) return sequence.q.data();
    multiply({sequence.q.data(), shape.q_width, n * shape.q_width},
             {q.weight.data(), dim, shape.q_width * dim}, {scratch.queries.data(), dim, n * dim}, n, dim,
             shape.q_width, shape.layers * shape.num_heads, 1.0f, 0.0f);
    rope(sequence, scratch.queries, shape.num_heads, /*inverse=*/false);
    return scratch.queries.data();
  }

  /// Adds `share` times the gradient of one sequence's loss, or sets it if it is the `first`, and adds the
  /// loss.
  void add_gradient(Sequence& sequence, const GateTrainItem& item, float share, bool first) {
    const std::int64_t n = sequence.n, dim = shape.dim, pitch = pitch_of(n);
    const int score_group = shape.num_heads / shape.key_heads();  // query heads that read one head's keys
    const int score_batch = shape.layers * shape.key_heads();
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    float* queries = project(sequence);
    const auto of_queries = [&](float* data, int i, bool transposed = false) {
      return Matrices{data + i * n * dim, dim, score_group * n * dim, transposed};
    };
    const auto of_scores = [&](int i, bool transposed = false) {
      return Matrices{scratch.scores.data() + i * n * pitch, pitch, score_group * n * pitch, transposed};
    };
    for (int i = 0; i < score_group; ++i)
      multiply(of_queries(queries, i), {scratch.keys.data(), dim, n * dim, /*transposed=*/true}, of_scores(i),
               n, n, dim, score_batch, scale, 0.0f);
    launch_gate_kl(scratch.scores.data(), sequence.target.data(),
                   std::int64_t{shape.layers} * shape.num_heads, n, pitch, item.skip_rows,
                   static_cast<float>(item.row_weight), scratch.row_loss.data());
    launch_gate_loss(scratch.row_loss.data(), shape.layers, shape.num_heads * n, share * item.row_weight,
                     scratch.loss.data());
    const float keep = first ? 0.0f : 1.0f;
    for (int i = 0; i < score_group; ++i) {
      multiply(of_scores(i, /*transposed=*/true), of_queries(queries, i),
               {scratch.d_keys.data(), dim, n * dim}, n, dim, n, score_batch, scale, i == 0 ? 0.0f : 1.0f);
      if (shape.has_q_linear)
        multiply(of_scores(i), {scratch.keys.data(), dim, n * dim}, of_queries(scratch.d_queries.data(), i),
                 n, dim, n, score_batch, scale, 0.0f);
    }
    rope(sequence, scratch.d_keys, shape.key_heads(), /*inverse=*/true);
    const int key_group = shape.key_heads() / shape.num_kv_heads;
    for (int i = 0; i < key_group; ++i)
      multiply({sequence.k.data(), shape.k_width, n * shape.k_width, /*transposed=*/true},
               {scratch.d_keys.data() + i * n * dim, dim, key_group * n * dim},
               {k.gradient.data() + i * shape.k_width * dim, dim, key_group * shape.k_width * dim},
               shape.k_width, dim, n, shape.layers * shape.num_kv_heads, share, keep);
    if (!shape.has_q_linear) return;
    rope(sequence, scratch.d_queries, shape.num_heads, /*inverse=*/true);
    multiply({sequence.q.data(), shape.q_width, n * shape.q_width, /*transposed=*/true},
             {scratch.d_queries.data(), dim, n * dim}, {q.gradient.data(), dim, shape.q_width * dim},
             shape.q_width, dim, n, shape.layers * shape.num_heads, share, keep);
  }

  GateTrainShape shape;
  std::int64_t longest;  // before the arrays: checks that they fit
  Blas blas;
  Parameters k, q;
  Scratch scratch;
  std::vector<Sequence> sequences;
};

GateTraining::GateTraining(const GateTrainShape& shape, std::span<const GateTrainSequence> sequences) {
  SEER_CHECK(
      shape.layers > 0 && shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0 &&
          shape.dim > 0 && shape.dim % 2 == 0 && shape.k_width > 0 &&
          (shape.has_q_linear ? shape.q_width > 0 : shape.q_width == shape.dim),
      "distillation: layers {}, heads {} of {} KV heads, gate dimension {}, widths {} and {} do not fit "
      "together",
      shape.layers, shape.num_heads, shape.num_kv_heads, shape.dim, shape.q_width, shape.k_width);
  impl_ = std::make_unique<Impl>(shape, sequences);
}

GateTraining::~GateTraining() = default;

void GateTraining::upload(Matrix which, int layer, const float* weight, const float* m, const float* v) {
  Parameters& to = impl_->parameters(which);
  const std::int64_t size = impl_->layer_size(which), bytes = size * 4;
  copy_to_device(to.weight.data() + layer * size, weight, bytes);
  copy_to_device(to.m.data() + layer * size, m, bytes);
  copy_to_device(to.v.data() + layer * size, v, bytes);
}

void GateTraining::download(Matrix which, int layer, float* weight, float* m, float* v) const {
  const Parameters& from = impl_->parameters(which);
  const std::int64_t size = impl_->layer_size(which), bytes = size * 4;
  copy_to_host(weight, from.weight.data() + layer * size, bytes);
  copy_to_host(m, from.m.data() + layer * size, bytes);
  copy_to_host(v, from.v.data() + layer * size, bytes);
}

std::vector<double> GateTraining::step(std::span<const GateTrainItem> batch, const AdamFactors& adam) {
  SEER_CHECK(!batch.empty(), "distillation: expected a batch of at least one sequence, found none");
  DeviceArray<double>& loss = impl_->scratch.loss;
  loss.fill_bytes(0);
  const double share = 1.0 / static_cast<double>(batch.size());
  for (const GateTrainItem& item : batch)
    impl_->add_gradient(impl_->sequences.at(item.sequence), item, static_cast<float>(share),
                        &item == batch.data());
  for (Parameters* p : {&impl_->k, &impl_->q})
    if (p->weight.size() > 0)
      launch_gate_adam(adam, p->weight.size(), p->gradient.data(), p->weight.data(), p->m.data(),
                       p->v.data());
  return loss.download();
}

}  // namespace seer::cuda
