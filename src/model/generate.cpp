#include "model/generate.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "core/check.h"

namespace seer {

StopScanner::StopScanner(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_)
    SEER_CHECK(!stop.empty(), "--stop: expected a text, found an empty one");
}

std::string StopScanner::push(std::string_view piece) {
  if (found_) return {};
  pending_ += piece;
  std::size_t cut = std::string::npos;
  for (const std::string& stop : stops_) cut = std::min(cut, pending_.find(stop));
  if (cut != std::string::npos) {
    found_ = true;
    return pending_.substr(0, cut);
  }
  // Hold back the longest end of the text that begins some stop string.
  std::size_t held = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t size = std::min(stop.size() - 1, pending_.size()); size > held; --size) {
      if (pending_.compare(pending_.size() - size, size, stop, 0, size) == 0) held = size;
    }
  }
  std::string certain = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, certain.size());
  return certain;
}

std::string StopScanner::finish() { return found_ ? std::string() : std::exchange(pending_, {}); }

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
  }
  return "";
}

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

/// One prompt on its way.
struct GenerationBatch::Stream {
  Stream(Sequence sequence_, const GenerateOptions& options_, std::size_t index, const Tokenizer& tokenizer,
         std::span<const std::int32_t> prompt, OnText on_text_)
      : options(options_),
        sequence(std::move(sequence_)),
        sampler(options.sampling, index),
        scanner(options.stop),
        decoder(tokenizer),
        seen(prompt.begin(), prompt.end()),
        on_text(std::move(on_text_)) {}

  void emit(const std::string& text) {
    if (text.empty()) return;
    generation.text += text;
    if (on_text) on_text(text);
  }

  std::int64_t produced() const { return static_cast<std::int64_t>(generation.tokens.size()); }
  /// The next token is drawn from logits as the model gives them.
  bool draws_unchanged() const { return !sampler.changes_logits() && produced() >= options.min_new_tokens; }

  GenerateOptions options;
  Sequence sequence;
  Sampler sampler;
  StopScanner scanner;
  StreamDecoder decoder;
  std::vector<std::int32_t> seen;  // prompt and generated ids
  OnText on_text;
  Generation generation;
  bool open = true;
};

GenerationBatch::GenerationBatch(Transformer& model, const Tokenizer& tokenizer)
    : model_(model), tokenizer_(tokenizer) {}
GenerationBatch::~GenerationBatch() = default;

const std::vector<std::int32_t>& GenerationBatch::ends_of(const Stream& stream) const {
  return stream.options.end_tokens.empty() ? model_.config().eos_token_ids : stream.options.end_tokens;
}

/// The next token of a stream.
std::int32_t GenerationBatch::draw(Stream& stream, std::span<float> logits) {
  if (stream.produced() < stream.options.min_new_tokens)
    for (const std::int32_t end : ends_of(stream))
      if (static_cast<std::size_t>(end) < logits.size())
        logits[static_cast<std::size_t>(end)] = -std::numeric_limits<float>::infinity();
  return stream.sampler.sample(logits, stream.seen);
}

/// Takes the next token of a stream; false when the stream has ended.
bool GenerationBatch::advance(Stream& stream, std::int32_t token) {
  const GenerateOptions& options = stream.options;
  Generation& generation = stream.generation;
  const std::vector<std::int32_t>& ends = ends_of(stream);
  const bool ended = !options.ignore_eos && std::find(ends.begin(), ends.end(), token) != ends.end();
  if (!ended) {
    generation.tokens.push_back(token);
    stream.seen.push_back(token);
    stream.emit(stream.scanner.push(stream.decoder.push(token)));
  }
  const bool full =
      stream.produced() >= options.max_new_tokens || stream.sequence.length() >= model_.max_context();
  if (!ended && !stream.scanner.found() && !full) return true;
  stream.emit(stream.scanner.push(stream.decoder.finish()));
  stream.emit(stream.scanner.finish());
  generation.reason = ended                    ? FinishReason::kEos
                      : stream.scanner.found() ? FinishReason::kStop
                                               : FinishReason::kLength;
  return false;
}

const PrefillStats& GenerationBatch::add(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                                         Selector* selector, OnText on_text, const OnPrefill& on_prefill) {
  SEER_CHECK(options.max_new_tokens > 0, "--max-new-tokens: expected 1 or more, found {}",
             options.max_new_tokens);
  auto stream = std::make_unique<Stream>(model_.new_sequence(), options, streams_.size(), tokenizer_, prompt,
                                         std::move(on_text));
  if (options.decode.gate != nullptr)
    stream->sequence.set_decode_selector(std::make_unique<DecodeSelector>(model_.config(), options.decode));
  PrefillResult prefill =
      model_.prefill(stream->sequence, {.tokens = prompt, .selector = selector, .on_progress = on_prefill});
  stream->generation.prefill = prefill.stats;
  stream->open = advance(*stream, draw(*stream, prefill.last_logits));
  streams_.push_back(std::move(stream));
  return streams_.back()->generation.prefill;
}

std::size_t GenerationBatch::size() const { return streams_.size(); }

std::vector<Generation> GenerationBatch::finish(DecodeStats* stats) {
  const auto start = Clock::now();
  const auto vocab = static_cast<std::size_t>(model_.config().vocab_size);
  DecodeStats done;
  std::vector<Stream*> active;
  for (const auto& stream : streams_)
    if (stream->open) active.push_back(stream.get());
  std::vector<Sequence*> sequences;
  std::vector<std::int32_t> tokens;
  std::vector<TokenDraw> draws;
  std::vector<float> logits;
  std::vector<std::int32_t> next;
  while (!active.empty()) {
    sequences.clear();
    tokens.clear();
    for (Stream* stream : active) {
      sequences.push_back(&stream->sequence);
      tokens.push_back(stream->seen.back());
    }
    next.resize(active.size());
    if (std::all_of(active.begin(), active.end(), [](const Stream* s) { return s->draws_unchanged(); })) {
      draws.clear();
      for (Stream* stream : active) draws.push_back(stream->sampler.next_draw());
      model_.decode_drawn(sequences, tokens, draws, next.data());
    } else {
      logits.resize(active.size() * vocab);
      model_.decode(sequences, tokens, logits.data());
      for (std::size_t i = 0; i < active.size(); ++i)
        next[i] = draw(*active[i], std::span(logits).subspan(i * vocab, vocab));
    }
    ++done.steps;
    done.tokens += static_cast<std::int64_t>(active.size());
    std::vector<Stream*> remaining;
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (advance(*active[i], next[i]))
        remaining.push_back(active[i]);
      else
        active[i]->sequence.clear();
    }
    active = std::move(remaining);
  }
  done.seconds = seconds_since(start);
  if (stats != nullptr) *stats = done;
  std::vector<Generation> generations;
  for (const auto& stream : streams_) {
    stream->generation.decode = model_.decode_density(stream->sequence);
    generations.push_back(std::move(stream->generation));
  }
  streams_.clear();
  return generations;
}

GenerateResult generate(Transformer& model, const Tokenizer& tokenizer,
                        std::span<const std::vector<std::int32_t>> prompts, const GenerateOptions& options,
                        Selector* selector, const std::function<void(std::size_t, std::string_view)>& on_text,
                        const std::function<void(std::size_t, std::int64_t)>& on_prefill) {
  GenerationBatch batch(model, tokenizer);
  GenerateResult result;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    GenerationBatch::OnText text;
    GenerationBatch::OnPrefill progress;
    if (on_text) text = [&on_text, i](std::string_view piece) { on_text(i, piece); };
    if (on_prefill) progress = [&on_prefill, i](std::int64_t done) { on_prefill(i, done); };
    result.prefill_seconds += batch.add(prompts[i], options, selector, std::move(text), progress).seconds;
  }
  DecodeStats stats;
  result.generations = batch.finish(&stats);
  result.decode_seconds = stats.seconds;
  result.decode_steps = stats.steps;
  result.decode_tokens = stats.tokens;
  return result;
}

}  // namespace seer
